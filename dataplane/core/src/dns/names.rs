//! What a name may mean to a client of a namespace (facts/ztunnel.md section 7).

/// One reading of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alias {
    /// A hostname to look for.
    pub(super) hostname: String,
    /// The name that was asked for without its search domain, when that was taken off.
    pub(super) stripped: Option<String>,
}

/// All readings of `name`, the nearest first.
pub(super) fn aliases(name: &str, namespace: &str, domain: &str) -> Vec<Alias> {
    let read = |name: &str, stripped: Option<&str>| {
        let all = std::iter::once(name.to_owned()).chain(expansions(name, namespace, domain));
        all.map(|hostname| Alias {
            hostname,
            stripped: stripped.map(str::to_owned),
        })
        .collect::<Vec<_>>()
    };
    let mut found = read(name, None);
    // What kubelet puts into a pod's resolv.conf; the pod's own dnsConfig is not known here.
    for search in [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.to_owned(),
    ] {
        let rest = name.strip_suffix(&search).and_then(|rest| rest.strip_suffix('.'));
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            found.extend(read(rest, Some(rest)));
        }
    }
    found
}

/// What Kubernetes' short forms stand for, by their number of labels.
fn expansions(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let labels: Vec<_> = name.split('.').collect();
    match labels.as_slice() {
        [_] => vec![format!("{name}.{namespace}.svc.{domain}")],
        [_, _] => vec![
            format!("{name}.svc.{domain}"),
            format!("{name}.{namespace}.svc.{domain}"),
        ],
        [_, _, "svc"] => vec![format!("{name}.{domain}"), format!("{name}.svc.{domain}")],
        [_, _, _] => vec![format!("{name}.svc.{domain}")],
        [_, _, _, "svc"] => vec![format!("{name}.{domain}")],
        _ => Vec::new(),
    }
}

/// The wildcards that `hostname` falls under, the longest first.
pub(super) fn wildcards(hostname: &str) -> impl Iterator<Item = String> {
    let cuts = hostname.match_indices('.');
    cuts.map(|(at, _)| format!("*{}", &hostname[at..]))
}
