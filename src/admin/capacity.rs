//! `GET /v1/capacity`: what an operator, or a scaling rule, asks before the cluster grows or shrinks.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Inner, nodes::Legs, words::Role};
use crate::domain::{
    balance::{Room, minutes_to_full},
    ids::{Kind, NodeId},
};

/// What the cluster still takes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Capacity {
    publish: KindRoom,
    play: KindRoom,
    /// Per role that has a node to spare: the one whose going moves the least.
    cheapest_to_remove: Vec<Removal>,
}

/// Room for one kind of leg, as if only that kind came.
#[derive(Debug, Serialize, ToSchema)]
struct KindRoom {
    /// Legs that are there.
    open: u32,
    /// Legs that still fit.
    fit: u32,
    /// Nodes that take this kind now.
    nodes: u32,
    /// How many more there are each minute, over the last five minutes; null during the door's first half minute.
    per_minute: Option<f64>,
    /// Until nothing more fits at that rate; null while the cluster does not fill.
    minutes_to_full: Option<f64>,
}

/// A node that could be removed.
#[derive(Debug, Serialize, ToSchema)]
struct Removal {
    role: Role,
    #[schema(value_type = String)]
    node: NodeId,
    /// Legs that would have to move.
    legs: Legs,
    /// The others have room for them.
    fits: bool,
}

/// How many more publishes and plays fit, which node of each role is cheapest to remove, and minutes to full.
#[utoipa::path(get, path = "/v1/capacity", tag = "cluster", responses((status = 200, body = Capacity)))]
pub(super) async fn capacity(State(inner): State<Inner>) -> Json<Capacity> {
    let capacity = inner.state.registry.capacity();
    let rates = inner.history.legs_per_minute();
    let removal = |removal: crate::domain::balance::Removal| Removal {
        role: removal.role.into(),
        node: removal.node,
        legs: removal.legs.into(),
        fits: removal.fits,
    };
    Json(Capacity {
        publish: room(capacity.publish, rates.map(|(publish, _)| publish)),
        play: room(capacity.play, rates.map(|(_, play)| play)),
        cheapest_to_remove: capacity.cheapest.into_iter().map(removal).collect(),
    })
}

/// Brings the metrics of capacity up to date.
pub(super) fn measure(inner: &Inner) {
    let (capacity, rates) = (inner.state.registry.capacity(), inner.history.legs_per_minute());
    for (kind, room, rate) in [
        (Kind::Publish, capacity.publish, rates.map(|(publish, _)| publish)),
        (Kind::Play, capacity.play, rates.map(|(_, play)| play)),
    ] {
        let minutes = rate.and_then(|rate| minutes_to_full(room.fit, rate));
        inner.state.metrics.capacity(kind, room, minutes);
    }
}

fn room(room: Room, per_minute: Option<f64>) -> KindRoom {
    let Room { open, fit, nodes } = room;
    let minutes_to_full = per_minute.and_then(|rate| minutes_to_full(fit, rate));
    KindRoom { open, fit, nodes, per_minute, minutes_to_full }
}
