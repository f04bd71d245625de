//! What the kernel says of connections that it has refused a workload, or those who call it.

use sheath_common::event::{Event, EventKind};

use crate::capture::kernel::events::{denial_reason, drop_reason};
use crate::flow::Direction;
use crate::telemetry::{RefusedBy, RefusedConnection};

/// The connection that an event tells of, if it is one that was refused.
pub fn refused(event: &Event) -> Option<RefusedConnection<'static>> {
    let (direction, by, reason) = match EventKind::from_code(event.kind)? {
        EventKind::ConnectDenied => {
            (Direction::Outbound, RefusedBy::Connect, denial_reason(event.detail))
        }
        EventKind::GuardDroppedOutbound => {
            (Direction::Outbound, RefusedBy::Guard, drop_reason(event.detail))
        }
        EventKind::GuardDroppedInbound => {
            (Direction::Inbound, RefusedBy::Guard, drop_reason(event.detail))
        }
        _ => return None,
    };
    let (source, destination) = (event.source.into(), event.destination.into());
    let source = match direction {
        // It had none yet, or one of its own.
        Direction::Outbound => None,
        Direction::Inbound => Some(source),
    };
    Some(RefusedConnection { direction, by, source, destination, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheath_common::guard::DropReason;
    use sheath_common::net::{Address, Endpoint};
    use sheath_common::verdict::Denial;

    #[test]
    fn connections_in_either_direction_are_told_with_their_reasons() {
        let endpoint = |port| Endpoint { address: Address::default(), port };
        let event = |kind: EventKind, detail: u32| Event {
            kind: kind as u32,
            detail,
            source: endpoint(1),
            destination: endpoint(2),
            ..Event::default()
        };
        let denied = event(EventKind::ConnectDenied, Denial::UnknownDestination as u32);
        let denied = refused(&denied).unwrap();
        assert_eq!((denied.direction, denied.source), (Direction::Outbound, None));
        assert!(denied.reason.contains("outbound mode is require"), "{}", denied.reason);
        let called = event(EventKind::GuardDroppedInbound, DropReason::Port as u32);
        let called = refused(&called).unwrap();
        assert_eq!((called.direction, called.by), (Direction::Inbound, RefusedBy::Guard));
        assert_eq!((called.source.unwrap().port(), called.destination.port()), (1, 2));
        assert!(refused(&event(EventKind::CgroupCreated, 0)).is_none());
        assert!(refused(&event(EventKind::ProbeUnmatched, 0)).is_none());
    }
}
