use std::cell::Cell;
use std::rc::Rc;

use super::*;

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}

/// A decision that lacks `key` until `known` is set.
fn lacking(known: &Rc<Cell<bool>>) -> impl Fn() -> (bool, Option<String>) {
    let known = Rc::clone(known);
    move || (known.get(), (!known.get()).then(|| "/192.0.2.1".to_owned()))
}

fn asked(requests: &mut mpsc::Receiver<DeltaDiscoveryRequest>) -> Vec<String> {
    requests
        .try_recv()
        .map(|request| request.resource_names_subscribe)
        .unwrap_or_default()
}

#[test]
fn what_arrives_under_another_name_makes_the_decision() {
    paused(async {
        let (demand, (sender, mut requests)) = (Demand::default(), mpsc::channel(8));
        demand.connected(sender);
        let known = Rc::new(Cell::new(false));
        let controller = async {
            assert_eq!(
                requests.recv().await.expect("a request").resource_names_subscribe,
                ["/192.0.2.1"]
            );
            demand.answered(["of something else"].into_iter(), &[]);
            tokio::task::yield_now().await;
            known.set(true);
            demand.answered(["cluster//Pod/shop/web"].into_iter(), &[]);
        };
        let (decided, ()) = tokio::join!(demand.complete(lacking(&known)), controller);
        assert!(decided.expect("decided"));
    });
}

#[test]
fn where_there_is_nothing_is_asked_once() {
    paused(async {
        let (demand, (sender, mut requests)) = (Demand::default(), mpsc::channel(8));
        demand.connected(sender);
        let known = Rc::new(Cell::new(false));
        let controller = async {
            requests.recv().await.expect("a request");
            demand.answered([].into_iter(), &["/192.0.2.1".to_owned()]);
        };
        let (decided, ()) = tokio::join!(demand.complete(lacking(&known)), controller);
        assert!(!decided.expect("decided"));
        assert!(!demand.complete(lacking(&known)).await.expect("decided"));
        assert!(requests.try_recv().is_err(), "it is known that there is nothing");
    });
}

#[test]
fn without_an_answer_nothing_is_decided_and_the_next_stream_begins_with_the_question() {
    paused(async {
        let demand = Demand::default();
        let known = Rc::new(Cell::new(false));
        let begun = Instant::now();
        let error = demand.complete(lacking(&known)).await.expect_err("nobody answers");
        assert!(matches!(error, Unanswered::Late(key) if key == "/192.0.2.1"));
        assert_eq!(begun.elapsed(), PATIENCE);
        let (sender, mut requests) = mpsc::channel(8);
        demand.connected(sender);
        assert_eq!(asked(&mut requests), ["/192.0.2.1"]);
    });
}

#[test]
fn keys_are_bounded_and_those_of_nothing_make_room() {
    paused(async {
        let (demand, (sender, mut requests)) = (Demand::default(), mpsc::channel(2 * MOST_KEYS));
        demand.connected(sender);
        let keys: Vec<_> = (0..MOST_KEYS).map(|number| format!("/{number}")).collect();
        for key in &keys {
            assert_eq!(demand.ask(key).expect("room"), Answer::Awaited);
            assert_eq!(asked(&mut requests), std::slice::from_ref(key));
        }
        assert!(matches!(demand.ask("/more"), Err(Unanswered::TooMany(_))));
        demand.answered([].into_iter(), &keys[..1]);
        assert_eq!(demand.ask("/more").expect("room"), Answer::Awaited);
        assert_eq!(requests.try_recv().expect("sent").resource_names_unsubscribe, keys[..1]);
        assert_eq!(asked(&mut requests), ["/more"]);
    });
}

#[test]
fn a_stream_that_takes_no_more_is_asked_again_later() {
    let (demand, (sender, mut requests)) = (Demand::default(), mpsc::channel(1));
    demand.connected(sender);
    for key in ["/first", "/second", "/second"] {
        assert_eq!(demand.ask(key).expect("room"), Answer::Awaited);
    }
    assert_eq!(asked(&mut requests), ["/first"]);
    assert_eq!(demand.ask("/second").expect("room"), Answer::Awaited);
    assert_eq!(asked(&mut requests), ["/second"]);
}
