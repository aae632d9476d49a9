//! The files that `stubborn node` prints, with an explanation of every line.

/// What `stubborn node --print-config` prints.
pub(crate) const EXAMPLE: &str = "\
# A node of a replicated cluster: stubborn node --config FILE
#
# Lines are `name = value`; what follows a # is a comment. Paths are relative to this file.
# `stubborn up --prepare a.example:7400,b.example:7400,c.example:7400 --data DIR` writes such a file
# for each node, with certificates that fit; copy each DIR/node-N to its machine.

# What tells this group from every other: 14 hex digits that are drawn at random when the group is
# made (for example with: openssl rand -hex 7), then 00. The same at all of its nodes.
group = 0123456789abcd00

# Which member this node is. A node that has lost its disk never comes back under its number.
node = 1

# The UDP address to listen on.
listen = 0.0.0.0:7400

# The folder with the log and the snapshots.
data = data

# The node's certificate and key, and the authority that has signed those of all nodes and clients.
# The certificate of node 1 bears the name node-1.stubborn, and also node.stubborn, by which clients
# know all nodes.
certificate = node.crt
key = node.key
authority = authority.crt

# Who may call: `certificate` (whoever has one of that authority) or `anybody`.
clients = certificate

# Who may call what: a file with lines `WHAT = WHO, WHO`; `stubborn node --print-access` prints one with an
# explanation. The node looks at it every ten seconds. Without such a line whoever may connect may call
# everything. Nodes may differ in it; a call is judged by the one that its client is connected to.
# access = access.conf

# Whether this node, while it leads, answers reads without a question to the others for as long as they
# cannot have elected another leader: `no`, or `yes` where the clocks of all members go at about one
# speed and virtual machines are not suspended.
lease = no

# Whether this node answers gRPC, too, over TCP on the port number of `listen`: `no`; `tls`, with the node's
# certificate and for the same clients; or `plain`, without TLS and for whoever reaches it.
grpc = no

# Where Prometheus is told what this node counts and measures: a TCP address for plain HTTP, path
# /metrics. Whoever reaches it is told; without such a line nobody is.
# prometheus = 127.0.0.1:9400

# The members with which the group begins: number, address, and the fingerprint of the node's key
# (`stubborn ping` shows it). The same lines, in any order, at every node.
member = 1 a.example:7400 0000000000000000000000000000000000000000000000000000000000000001
member = 2 b.example:7400 0000000000000000000000000000000000000000000000000000000000000002
member = 3 c.example:7400 0000000000000000000000000000000000000000000000000000000000000003
";

/// What `stubborn node --print-access` prints.
pub(crate) const ACCESS_EXAMPLE: &str = "\
# Who may call what at a node: a line `access = FILE` in its configuration.
#
# Lines are `WHAT = WHO, WHO, ...`; what follows a # is a comment. What no line names is refused: such a
# call never runs, at whichever node it is made again. The node looks at this file every ten seconds; what
# cannot be used is told on standard error, and what was before holds.
#
# WHAT is a service, one of its methods (SERVICE/METHOD, which stands before the line of its service), or
# `health`, `reflection`, `metrics`. WHO is
#   spiffe://DOMAIN/PATH   the SPIFFE id of the caller's certificate; spiffe://DOMAIN/* for all that begin so
#   dns:NAME               a name in it; `stubborn up` gives clients the name `client`
#   key:FINGERPRINT        its key
#   subject:NAME           whose bearer token the call has, by a line `token NAME = SHA-256 of the token`
#   certificate            whoever has one of the authority
#   anybody                also who has none

stubborn.kv.v1.Kv = dns:client, spiffe://bank.example/teller
stubborn.kv.v1.Kv/Get = certificate

# `stubborn up`, `status`, `members` and `backup`; nodes that join ask for the members.
stubborn.group.v1.Group = dns:client
stubborn.group.v1.Group/Members = certificate

health = anybody
reflection = certificate
metrics = dns:client

# Drawn at random, and noted here only as: printf %s TOKEN | sha256sum
# token auditor = 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
";

#[cfg(test)]
mod tests {
    use stubborn::replica::NodeConfig;

    use super::*;

    #[test]
    fn the_example_is_a_configuration_and_survives_being_written() {
        let config = NodeConfig::parse(EXAMPLE).unwrap();
        assert_eq!((config.node, config.members.len()), (1, 3));
        assert_eq!(NodeConfig::parse(&config.to_text()).unwrap(), config);
        let all = EXAMPLE.replace("# prometheus", "prometheus").replace("# access =", "access =");
        let told = NodeConfig::parse(&all).unwrap();
        assert!(told.access.is_some() && told.prometheus.is_some());
    }

    #[test]
    fn the_example_of_access_can_be_used() {
        let access = ACCESS_EXAMPLE.replace("# token", "token").parse::<stubborn::Access>();
        assert!(access.is_ok(), "{access:?}");
    }
}
