//! Many ztunnels' discovery streams at once, for `bench scale` and `bench cluster`: what they are told is counted and
//! acknowledged, and thrown away.
//!
//! Run: `agents https://HOST:PORT ROOT_CA TOKENS COUNT [NAME]`; `TOKENS/N` is the file of the token of `node-N`, and NAME
//! is the server's where its certificate is not for HOST. Commands come on standard input, one a line, and answers are
//! lines of JSON with times of CLOCK_MONOTONIC in seconds:
//!
//! - `connect N`: connect all; answered when each was told of N addresses (`done`);
//! - `resume`: connect all, with a summary of what the first one was told before; answered when each has its first answer;
//! - `relist`: the same with the list of all versions;
//! - `drop`: end all streams; not answered.
//!
//! Between, whenever all were told once more, a line says so (`round`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

use ambit_io::control::discovery::{DeltaDiscoveryRequest, DiscoveryStream, Node};
use ambit_io::control::{ControlError, ControlPlane, summary};
use prost_types::{Struct, Value, value::Kind};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// What all agents share.
struct Shared {
    address: String,
    root_ca: PathBuf,
    server_name: Option<String>,
    tokens: PathBuf,
    count: usize,
    progress: RefCell<Progress>,
}

#[derive(Default)]
struct Progress {
    synced: usize,
    resources: usize,
    rounds: Vec<usize>,
    versions: HashMap<String, String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, root_ca, tokens, count, name @ ..] = arguments.as_slice() else {
        return Err("usage: agents https://HOST:PORT ROOT_CA TOKENS COUNT [NAME]".into());
    };
    let shared = Rc::new(Shared {
        address: address.clone(),
        root_ca: root_ca.into(),
        server_name: name.first().cloned(),
        tokens: tokens.into(),
        count: count.parse()?,
        progress: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, follow_commands(&shared))
}

async fn follow_commands(shared: &Rc<Shared>) -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut agents: Vec<JoinHandle<()>> = Vec::new();
    let mut remembered = HashMap::new();
    while let Some(line) = lines.next_line().await? {
        let told = shared.progress.replace(Progress::default());
        if !told.versions.is_empty() {
            remembered = told.versions;
        }
        for agent in agents.drain(..) {
            agent.abort();
        }
        let mut words = line.split_whitespace();
        let (expected, known) = match (words.next(), words.next()) {
            (Some("connect"), Some(expected)) => (expected.parse()?, HashMap::new()),
            (Some("relist"), None) => (0, remembered.clone()),
            (Some("resume"), None) => (0, sum_up(&remembered)),
            _ => continue,
        };
        let known = Rc::new(known);
        for number in 0..shared.count {
            let (shared, known) = (Rc::clone(shared), Rc::clone(&known));
            agents.push(spawn_local(async move {
                if let Err(error) = follow(&shared, number, expected, &known).await {
                    say(&format!("{{\"error\": {:?}}}", error.to_string()));
                }
            }));
        }
    }
    Ok(())
}

fn sum_up(versions: &HashMap<String, String>) -> HashMap<String, String> {
    summary::as_versions(versions.iter().map(|(name, version)| (name.as_str(), version.clone())))
}

/// One agent's stream, for as long as it lasts.
async fn follow(
    shared: &Shared,
    number: usize,
    expected: usize,
    known: &HashMap<String, String>,
) -> Result<(), ControlError> {
    let controller = ControlPlane {
        address: shared.address.clone(),
        root_ca: shared.root_ca.clone(),
        server_name: shared.server_name.clone(),
        token: Some(shared.tokens.join(number.to_string())),
        cluster_id: "Kubernetes".to_owned(),
    };
    let first = vec![
        open(ADDRESS, number, known.clone()),
        open(AUTHORIZATION, number, HashMap::new()),
    ];
    let mut stream = DiscoveryStream::open(&controller, first).await?;
    let (mut told, mut responses) = (0, None);
    loop {
        let response = stream.receive().await?;
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..Default::default()
        };
        stream.send(answer).await?;
        if response.type_url != ADDRESS {
            continue;
        }
        let mut progress = shared.progress.borrow_mut();
        told += response.resources.len();
        progress.resources += response.resources.len();
        if number == 0 {
            for each in &response.resources {
                let name = String::from_utf8_lossy(&each.name).into_owned();
                progress
                    .versions
                    .insert(name, String::from_utf8_lossy(&each.version).into_owned());
            }
        }
        match &mut responses {
            None if told >= expected => {
                responses = Some(0);
                progress.synced += 1;
                if progress.synced == shared.count {
                    say(&format!(
                        "{{\"done\": {}, \"resources\": {}}}",
                        now(),
                        progress.resources
                    ));
                }
            }
            None => {}
            Some(round) => {
                if progress.rounds.len() <= *round {
                    progress.rounds.push(0);
                }
                progress.rounds[*round] += 1;
                if progress.rounds[*round] == shared.count {
                    say(&format!("{{\"round\": {}}}", now()));
                }
                *round += 1;
            }
        }
    }
}

fn open(type_url: &str, number: usize, known: HashMap<String, String>) -> DeltaDiscoveryRequest {
    let node_name = Value {
        kind: Some(Kind::StringValue(format!("node-{number}"))),
    };
    let metadata = Struct {
        fields: [("NODE_NAME".to_owned(), node_name)].into(),
    };
    DeltaDiscoveryRequest {
        node: Some(Node {
            id: format!("ztunnel~192.0.2.1~ztunnel-{number}.istio-system~istio-system.svc.cluster.local"),
            metadata: Some(metadata),
        }),
        type_url: type_url.to_owned(),
        initial_resource_versions: known,
        ..Default::default()
    }
}

/// CLOCK_MONOTONIC, which Python's time.monotonic() reads too.
fn now() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
