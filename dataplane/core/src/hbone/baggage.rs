//! `baggage`: how each end describes its workload to the other, for metrics and logs.
//!
//! Comma-separated `key=value`, no spaces, no escapes; values that are empty are left out, in writing and in reading.

use std::fmt;

use crate::wire::workload::WorkloadType;

const KINDS: [(&str, WorkloadType); 4] = [
    ("k8s.deployment.name", WorkloadType::Deployment),
    ("k8s.cronjob.name", WorkloadType::Cronjob),
    ("k8s.pod.name", WorkloadType::Pod),
    ("k8s.job.name", WorkloadType::Job),
];

/// A workload as the peer describes it. Not authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<String>,
    /// `k8s.namespace.name`
    pub namespace: Option<String>,
    /// `k8s.<type>.name`
    pub workload: Option<(WorkloadType, String)>,
    /// `service.name`: the canonical name.
    pub service: Option<String>,
    /// `service.version`: the canonical revision.
    pub version: Option<String>,
    /// `cloud.region`
    pub region: Option<String>,
    /// `cloud.availability_zone`
    pub zone: Option<String>,
}

impl Baggage {
    /// Read a header value (several lines joined by commas). Unknown keys are ignored, so this cannot fail; the value's
    /// length is bounded by the header list's.
    pub fn parse(value: &str) -> Self {
        let mut baggage = Self::default();
        for member in value.split(',') {
            let mut parts = member.split('=');
            let (Some(key), Some(text)) = (parts.next(), parts.next()) else {
                continue;
            };
            baggage.set(key, Some(text).filter(|text| !text.is_empty()).map(str::to_owned));
        }
        baggage
    }

    fn set(&mut self, key: &str, text: Option<String>) {
        let target = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service,
            "service.version" => &mut self.version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => {
                if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == key) {
                    self.workload = text.map(|name| (*kind, name));
                }
                return;
            }
        };
        *target = text;
    }

    fn members(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let workload = self.workload.as_ref().and_then(|(kind, name)| {
            let (key, _) = KINDS.iter().find(|(_, named)| named == kind)?;
            Some((*key, name.as_str()))
        });
        let rest = [
            ("service.name", &self.service),
            ("service.version", &self.version),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ];
        [
            ("k8s.cluster.name", &self.cluster),
            ("k8s.namespace.name", &self.namespace),
        ]
        .into_iter()
        .filter_map(named)
        .chain(workload)
        .chain(rest.into_iter().filter_map(named))
        .filter(|(_, text)| is_member_value(text))
    }
}

fn named<'a>((key, text): (&'static str, &'a Option<String>)) -> Option<(&'static str, &'a str)> {
    Some((key, text.as_deref()?))
}

/// There are no escapes, so a value that would break the format, or be refused as a header, is left out.
fn is_member_value(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'=')
}

impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, text)) in self.members().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={text}")?;
        }
        Ok(())
    }
}
