//! Who is in a cluster: what `CLUSTER NODES` answers.
//!
//! ```text
//!   ID HOST:PORT@BUS[,NAME] FLAGS PRIMARY PING PONG EPOCH LINK [SLOTS...] [[SLOT->-ID]...]
//! ```
//!
//! That a slot is on the move, a node says only of itself.

use super::slots::SlotSet;

/// A node, as another or it itself sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: String,
    /// `host:port`.
    pub(super) address: String,
    /// It is the one that was asked.
    pub(super) asked: bool,
    pub(super) role: Role,
    pub(super) slots: SlotSet,
    /// Slots that come or go at the moment.
    pub(super) moving: SlotSet,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Takes writes, or will when it has slots.
    Primary,
    /// The cluster agreed that it is down.
    FailedPrimary,
    Replica,
}

/// Reads an answer that came from `host`; `None` if it is not understood.
pub(super) fn parse(text: &str, host: &str) -> Option<Vec<Node>> {
    let nodes: Option<Vec<Option<Node>>> =
        text.lines().filter(|line| !line.is_empty()).map(|line| node(line, host)).collect();
    let nodes: Vec<Node> = nodes?.into_iter().flatten().collect();
    nodes.iter().any(|node| node.asked).then_some(nodes)
}

/// `Some(None)`: one that is not in the cluster yet, or that nobody can reach.
fn node(line: &str, host: &str) -> Option<Option<Node>> {
    let mut words = line.split(' ');
    let (id, place, flags) = (words.next()?, words.next()?, words.next()?);
    let has = |wanted: &str| flags.split(',').any(|flag| flag == wanted);
    if has("noaddr") || has("handshake") {
        return Some(None);
    }
    let (mut slots, mut moving) = (SlotSet::default(), SlotSet::default());
    for word in words.skip(5) {
        match word.strip_prefix('[') {
            Some(mark) => {
                let (slot, _) = mark.split_once("-")?;
                moving.insert_range(slot).then_some(())?;
            }
            None => slots.insert_range(word).then_some(())?,
        }
    }
    let node = Node {
        id: id.to_owned(),
        address: address(place, host)?,
        asked: has("myself"),
        role: match (has("master"), has("fail")) {
            (true, false) => Role::Primary,
            (true, true) => Role::FailedPrimary,
            (false, _) => Role::Replica,
        },
        slots,
        moving,
    };
    Some(Some(node))
}

/// By name if it has one, since that is what certificates name.
fn address(place: &str, asked_host: &str) -> Option<String> {
    let mut parts = place.split(',');
    let (socket, name) = (parts.next()?, parts.next().unwrap_or_default());
    let (host, port) = socket.split_once('@').map_or(socket, |(it, _)| it).rsplit_once(':')?;
    let host = match (name, host) {
        // A node that nobody has met does not know its address.
        ("", "") => asked_host.to_owned(),
        ("", host) if host.contains(':') => format!("[{host}]"),
        ("", host) => host.to_owned(),
        (name, _) => name.to_owned(),
    };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
1585f2 127.0.0.1:7001@17001 myself,master - 0 0 3 connected 0-8000 9000 [3300->-1415a6] [4-<-1415a6]
1415a6 10.0.0.2:7002@17002,two.local master,fail - 0 1795316038855 1 connected 8001-8999
77aa00 ::1:7003@17003 slave,fail? 1585f2 0 1795316038855 3 connected
88aa00 :0@0 master,noaddr - 0 0 0 disconnected
99aa00 10.0.0.9:7009@17009 handshake - 0 0 0 connected
";

    #[test]
    fn nodes_their_slots_and_what_moves_are_read() {
        let nodes = parse(TEXT, "seed").unwrap();
        let [one, two, three] = &nodes[..] else { panic!("{nodes:?}") };
        assert!(one.asked && one.role == Role::Primary);
        assert_eq!(
            (one.slots.to_string(), one.moving.to_string()),
            ("0-8000,9000".into(), "4,3300".into())
        );
        assert_eq!(one.address, "127.0.0.1:7001");
        assert!(two.role == Role::FailedPrimary && two.address == "two.local:7002");
        assert!(three.role == Role::Replica && three.address == "[::1]:7003");
    }

    #[test]
    fn a_node_alone_is_where_it_was_asked() {
        let nodes = parse("ab :7001@17001 myself,master - 0 0 0 connected 5", "cache.local");
        assert_eq!(nodes.unwrap()[0].address, "cache.local:7001");
    }

    #[test]
    fn other_answers_are_refused() {
        for wrong in [
            "",
            "a b",
            "ab 1.1.1.1:1@2 master - 0 0 0 connected 0-1",
            "ab x myself,master - 0 0 0 c",
        ] {
            assert_eq!(parse(wrong, "host"), None, "{wrong}");
        }
        assert_eq!(parse("ab h:1@2 myself,master - 0 0 0 connected 0-99999", "h"), None);
    }
}
