//! Any bytes as a query and as a name server's reply.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_core::dns::{
    QueryType, Received, build_failure, build_reply, id_of, is_answer_to, parse_query, read_addresses, type_label,
    with_id,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let (query, reply, count) = input;
    assert!(!type_label(query).is_empty());
    let _ = is_answer_to(query, reply);
    for kind in [QueryType::V4, QueryType::V6] {
        if let Ok(found) = read_addresses(reply, kind) {
            assert!(found.addresses.iter().all(|ip| kind.fits(ip)));
        }
    }
    match parse_query(query) {
        Received::Question(question) => {
            let addresses: Vec<IpAddr> = (0..count)
                .map(|last| match last % 2 {
                    0 => Ipv4Addr::new(192, 0, 2, last).into(),
                    _ => Ipv6Addr::from(u128::from(last)).into(),
                })
                .collect();
            let fitting: Vec<_> = addresses.into_iter().filter(|ip| question.kind.fits(ip)).collect();
            for over_udp in [true, false] {
                let answer = build_reply(query, &question, Some("web.shop.svc.cluster.local"), &fitting, over_udp);
                assert!(is_answer_to(query, &answer), "our own answers answer");
                assert!(!over_udp || answer.len() <= 4096 + 512);
            }
            assert!(is_answer_to(query, &build_failure(query)));
        }
        Received::Other => {
            let changed = with_id(query, 7);
            assert_eq!((id_of(&changed), changed.len()), (7, query.len()));
            let _ = build_failure(query);
        }
        Received::Ignored => {}
    }
});
