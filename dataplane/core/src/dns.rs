//! Names of the mesh, answered to the pods of this node (facts/ztunnel.md section 7).
//!
//! A query is ours when it asks for an address (A, AAAA) of a name that a service of the mesh has. Everything else goes to
//! the node's name servers as the bytes that the client sent, so whatever it says (EDNS, DNSSEC, opcodes, types) keeps its
//! meaning, and so does the answer. Stock ztunnel asks anew for name and type only, and so loses all of that.
//!
//! Read `message` (bytes), `names` (what a name may mean in a namespace), `answer` (who answers, and with what).

mod answer;
mod lookup;
mod message;
mod names;

pub use answer::{Answer, Decision, Resolver};
pub use lookup::{Found, LookupError, build_lookup, read_addresses};
pub use message::{
    ADDRESS_LIMIT, HEADER_BYTES, Query, QueryType, Received, build_failure, build_reply, id_of, is_answer_to,
    parse_query, type_label, with_id,
};

#[cfg(test)]
mod tests;
