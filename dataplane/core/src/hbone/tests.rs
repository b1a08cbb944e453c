use super::*;
use crate::wire::workload::WorkloadType;

fn service(hostname: &str, port: u16) -> Authority {
    Authority::Service {
        hostname: hostname.into(),
        port,
    }
}

#[test]
fn authorities_are_addresses_or_hostnames_with_a_port() {
    let address = |text: &str| Authority::Address(text.parse().expect("test address"));
    assert_eq!("192.0.2.1:8080".parse(), Ok(address("192.0.2.1:8080")));
    assert_eq!("[2001:db8::1]:443".parse(), Ok(address("[2001:db8::1]:443")));
    assert_eq!(
        "Web.prod.svc.cluster.local:80".parse(),
        Ok(service("web.prod.svc.cluster.local", 80))
    );
    for text in ["192.0.2.1:80", "[2001:db8::1]:80", "a.b:1"] {
        assert_eq!(
            text.parse::<Authority>().map(|authority| authority.to_string()),
            Ok(text.to_owned())
        );
    }
}

#[test]
fn anything_else_is_no_authority() {
    let long = format!("{}:80", "a".repeat(254));
    let others = [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:0",
        "host:+1",
        "host:65536",
        "2001:db8::1:80",
        "[2001:db8::1]",
        "u@h:80",
        "[fe80::1%2]:80",
        "h/p:80",
        "h ost:80",
        "ö.example:80",
        &long,
    ];
    for text in others {
        assert_eq!(text.parse::<Authority>(), Err(InvalidAuthority), "{text:?}");
    }
}

#[test]
fn forwarded_names_the_client_and_the_service() {
    let client = "192.0.2.7:40000".parse().expect("test address");
    assert_eq!(Forwarded { client, host: None }.to_string(), "for=\"192.0.2.7:40000\"");
    let client = "[2001:db8::7]:40000".parse().expect("test address");
    let text = Forwarded {
        client,
        host: Some("web.prod.svc"),
    }
    .to_string();
    assert_eq!(text, "for=\"[2001:db8::7]:40000\";host=web.prod.svc");
    assert_eq!(parse_forwarded_host(&text), Some("web.prod.svc"));
}

#[test]
fn the_forwarded_host_may_be_quoted_or_absent() {
    assert_eq!(parse_forwarded_host("for=x; host=\"a.b\""), Some("a.b"));
    for value in ["", "host=", "host=\"\"", "hosts=a", "for=host", "host=ö"] {
        assert_eq!(parse_forwarded_host(value), None, "{value:?}");
    }
}

#[test]
fn traceparent_round_trips() {
    let parent = TraceParent {
        trace: 0x0123,
        span: u64::MAX,
    };
    let text = parent.to_string();
    assert_eq!(text, "00-00000000000000000000000000000123-ffffffffffffffff-00");
    assert_eq!(TraceParent::parse(&text), Some(parent));
    assert_eq!(TraceParent::parse(&text[1..]), None);
    assert_eq!(TraceParent::parse(&text.replace("00-0000", "00-+000")), None);
    assert_eq!(TraceParent::parse(&text.replace('-', "0")), None);
}

#[test]
fn baggage_is_written_in_istios_order_without_empty_values() {
    let baggage = Baggage {
        cluster: Some("Kubernetes".into()),
        namespace: Some("prod".into()),
        workload: Some((WorkloadType::Cronjob, "nightly".into())),
        service: Some("nightly".into()),
        version: Some(String::new()),
        region: Some("eu,1".into()),
        zone: Some("a".into()),
    };
    let text = "k8s.cluster.name=Kubernetes,k8s.namespace.name=prod,k8s.cronjob.name=nightly,service.name=nightly,\
                cloud.availability_zone=a";
    assert_eq!(baggage.to_string(), text);
    assert_eq!(
        Baggage::parse(text),
        Baggage {
            version: None,
            region: None,
            ..baggage
        }
    );
    assert_eq!(Baggage::default().to_string(), "");
}

#[test]
fn baggage_ignores_what_it_does_not_know() {
    let baggage = Baggage::parse("a=b,,=,k8s.pod.name=p=q,service.name,service.version=,cloud.region= r");
    let workload = Some((WorkloadType::Pod, "p".into()));
    assert_eq!(
        baggage,
        Baggage {
            workload,
            region: Some(" r".into()),
            ..Baggage::default()
        }
    );
}
