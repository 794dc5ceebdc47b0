//! The database `forebay`: the only one that a door writes.

use std::time::Duration;

use mongodb::{
    Client, Collection, IndexModel,
    bson::{Bson, DateTime, Document, doc},
    error::{Error, ErrorKind, Result as DriverResult, WriteFailure},
    options::IndexOptions,
};

use super::{MongoStore, reader::BACKGROUND_LIMIT, wire};
use crate::{
    domain::{
        balance::Legs,
        drain::{DrainOrder, Migrate},
        ids::{AppName, NodeId, StreamKey},
    },
    registry::{
        own::{Claim, DOOR_TTL, DoorDoc, MAX_DOORS, MAX_ORDERS, NodeDoc},
        store::StoreError,
    },
};

/// Each question or write of the door's regular work.
const OWN_LIMIT: Duration = Duration::from_millis(800);
/// Two writers of one pin take turns; more turns than that are no race any more.
const CLAIM_TURNS: usize = 8;
/// Streams that are counted; one more makes no difference to anybody.
const COUNTED: u64 = 100_000;
/// MongoDB's code for a value that a unique index already has.
const DUPLICATE_KEY: i32 = 11_000;

fn own(client: &Client, collection: &str) -> Collection<Document> {
    client.database("forebay").collection(collection)
}

impl MongoStore {
    /// TTL indexes: MongoDB itself forgets doors and pins that nobody refreshes.
    pub(in crate::registry) async fn prepare_own(&self) -> Result<(), StoreError> {
        self.ask(BACKGROUND_LIMIT, None, |client| async move {
            for (collection, field, ttl) in [("doors", "at", DOOR_TTL), ("pins", "until", Duration::ZERO)] {
                let options = IndexOptions::builder().expire_after(ttl).build();
                let mut keys = Document::new();
                keys.insert(field, 1);
                own(&client, collection)
                    .create_index(IndexModel::builder().keys(keys).options(options).build())
                    .await?;
            }
            Ok(())
        })
        .await
    }

    pub(in crate::registry) async fn node_docs(&self) -> Result<Vec<NodeDoc>, StoreError> {
        let documents = self.own_documents("nodes", MAX_ORDERS).await?;
        Ok(documents.iter().filter_map(node_doc).collect())
    }

    pub(in crate::registry) async fn door_docs(&self) -> Result<Vec<DoorDoc>, StoreError> {
        let documents = self.own_documents("doors", MAX_DOORS).await?;
        Ok(documents.iter().filter_map(door_doc).collect())
    }

    async fn own_documents(&self, collection: &'static str, limit: usize) -> Result<Vec<Document>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask(OWN_LIMIT, None, move |client| async move {
            let mut cursor = own(&client, collection).find(doc! {}).limit(limit).max_time(OWN_LIMIT).await?;
            let mut documents = Vec::new();
            while cursor.advance().await? {
                documents.push(cursor.deserialize_current()?);
            }
            Ok(documents)
        })
        .await
    }

    pub(in crate::registry) async fn put_order(&self, doc: &NodeDoc, expected: i64) -> Result<bool, StoreError> {
        let doc = doc.clone();
        // Longer than other questions: a write whose answer is lost counts as made apart, and may win over a later one.
        self.ask(BACKGROUND_LIMIT, None, move |client| async move {
            let nodes = own(&client, "nodes");
            let order = doc.order.as_ref().map_or(Bson::Null, |order| Bson::Document(order_fields(order)));
            let fields = doc! { "revision": doc.revision, "changed_ms": doc.changed_ms, "drain": order };
            if expected == 0 {
                let mut whole = doc! { "_id": doc.node.as_str(), "moved": 0_i64, "failed": 0_i64 };
                whole.extend(fields);
                return match nodes.insert_one(whole).await {
                    Ok(_) => Ok(true),
                    Err(error) if is_duplicate(&error) => Ok(false),
                    Err(error) => Err(error),
                };
            }
            let filter = doc! { "_id": doc.node.as_str(), "revision": expected };
            let before = nodes.find_one_and_update(filter, doc! { "$set": fields }).await?;
            let Some(before) = before else { return Ok(false) };
            let since = |order: Option<&DrainOrder>| order.map(|order| order.since_ms);
            let was = node_doc(&before).and_then(|before| before.order);
            if since(was.as_ref()) != since(doc.order.as_ref()) {
                // Nobody has counted anything of the new drain yet.
                let anew = doc! { "$set": { "moved": 0_i64, "failed": 0_i64 } };
                nodes.update_one(doc! { "_id": doc.node.as_str(), "revision": doc.revision }, anew).await?;
            }
            Ok(true)
        })
        .await
    }

    pub(in crate::registry) async fn add_counts(
        &self,
        node: &NodeId,
        since_ms: i64,
        moved: u64,
        failed: u64,
    ) -> Result<(), StoreError> {
        let filter = doc! { "_id": node.as_str(), "drain.since_ms": since_ms };
        let more = doc! { "$inc": { "moved": whole(moved), "failed": whole(failed) } };
        self.ask(
            OWN_LIMIT,
            None,
            |client| async move { own(&client, "nodes").update_one(filter, more).await.map(drop) },
        )
        .await
    }

    pub(in crate::registry) async fn beat(&self, door: &DoorDoc) -> Result<(), StoreError> {
        let legs: Vec<Document> = door
            .legs
            .iter()
            .map(|(node, legs)| {
                doc! { "node": node.as_str(), "publish": i64::from(legs.publish), "play": i64::from(legs.play) }
            })
            .collect();
        let drains: Option<Vec<Document>> = door.drains.as_ref().map(|drains| {
            drains.iter().map(|(node, since_ms)| doc! { "node": node.as_str(), "since": since_ms }).collect()
        });
        let fields = doc! {
            "name": &door.name, "public_url": door.public_url.clone(), "draining": door.draining,
            "table": &door.table, "beat": door.beat, "legs": legs, "drains": drains,
        };
        let filter = doc! { "_id": &door.id };
        // The server's clock, so that no door's clock decides which others are forgotten.
        let update = doc! { "$set": fields, "$currentDate": { "at": true } };
        self.ask(OWN_LIMIT, None, |client| async move {
            own(&client, "doors").update_one(filter, update).upsert(true).await.map(drop)
        })
        .await
    }

    pub(in crate::registry) async fn leave(&self, door: &str) -> Result<(), StoreError> {
        let filter = doc! { "_id": door };
        self.ask(OWN_LIMIT, None, |client| async move { own(&client, "doors").delete_one(filter).await.map(drop) })
            .await
    }

    pub(in crate::registry) async fn claim(&self, claim: Claim) -> Result<NodeId, StoreError> {
        let claimed = self.ask(OWN_LIMIT, None, |client| async move {
            let pins = own(&client, "pins");
            for _ in 0..CLAIM_TURNS {
                if let Some(node) = claim_once(&pins, &claim).await? {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        });
        claimed.await?.ok_or(StoreError::Busy)
    }

    pub(in crate::registry) async fn keep_pins(
        &self,
        pins: Vec<(StreamKey, NodeId)>,
        until_ms: i64,
    ) -> Result<(), StoreError> {
        self.ask(BACKGROUND_LIMIT, None, move |client| async move {
            let collection = own(&client, "pins");
            let until = DateTime::from_millis(until_ms);
            for (key, node) in pins {
                let filter = doc! { "_id": key.to_string(), "node": node.as_str() };
                match collection.update_one(filter, doc! { "$set": { "until": until } }).upsert(true).await {
                    // Another door has pinned it elsewhere meanwhile.
                    Err(error) if is_duplicate(&error) => {}
                    other => drop(other?),
                }
            }
            Ok(())
        })
        .await
    }

    pub(in crate::registry) async fn live_streams(
        &self,
        apps: &[AppName],
        names: &[String],
        since_ms: i64,
    ) -> Result<u32, StoreError> {
        let databases: Vec<String> = apps.iter().filter_map(|app| self.database(app).ok()).collect();
        let filter = doc! {
            "status": { "$in": ["broadcasting", "preparing"] },
            "updateTime": { "$gt": since_ms },
            "originAdress": { "$in": names },
        };
        let counted = self.ask(BACKGROUND_LIMIT, None, |client| async move {
            let mut counted = 0_u64;
            for database in databases {
                let broadcasts: Collection<Document> = client.database(&database).collection("broadcast");
                counted += broadcasts.count_documents(filter.clone()).limit(COUNTED).max_time(BACKGROUND_LIMIT).await?;
            }
            Ok(counted)
        });
        Ok(u32::try_from(counted.await?).unwrap_or(u32::MAX))
    }
}

/// One turn: the node that has the pin now, or nothing if another writer came between.
async fn claim_once(pins: &Collection<Document>, claim: &Claim) -> DriverResult<Option<NodeId>> {
    let until = DateTime::from_millis(claim.until_ms);
    let id = claim.key.to_string();
    let inserted = pins.insert_one(doc! { "_id": &id, "node": claim.node.as_str(), "until": until }).await;
    match inserted {
        Ok(_) => return Ok(Some(claim.node.clone())),
        Err(error) if is_duplicate(&error) => {}
        Err(error) => return Err(error),
    }
    let Some(held) = pins.find_one(doc! { "_id": &id }).await? else { return Ok(None) };
    let node: Option<NodeId> = held.get_str("node").ok().and_then(|node| node.parse().ok());
    let holds = held.get_datetime("until").is_ok_and(|until| until.timestamp_millis() > claim.now_ms);
    if let Some(node) = node.filter(|node| holds && !claim.unfit.contains(node)) {
        return Ok(Some(node));
    }
    let take = doc! { "$set": { "node": claim.node.as_str(), "until": until } };
    let taken = pins.update_one(held, take).await?;
    Ok((taken.matched_count == 1).then(|| claim.node.clone()))
}

fn order_fields(order: &DrainOrder) -> Document {
    doc! {
        "since_ms": order.since_ms, "deadline_ms": order.deadline_ms, "asked_ms": order.asked_ms,
        "migrate": order.migrate.as_str(), "per_second": i64::from(order.per_second), "drained_ms": order.drained_ms,
    }
}

/// A document of `nodes`; one that another release or a hand has spoilt counts as absent.
fn node_doc(document: &Document) -> Option<NodeDoc> {
    let number = |name: &str| document.get(name).and_then(wire::whole_number);
    let counted = |name: &str| number(name).and_then(|counted| u64::try_from(counted).ok()).unwrap_or(0);
    let order = match document.get("drain") {
        None | Some(Bson::Null) => None,
        Some(drain) => Some(order(drain.as_document()?)?),
    };
    Some(NodeDoc {
        node: document.get_str("_id").ok()?.parse().ok()?,
        revision: number("revision")?,
        changed_ms: number("changed_ms")?,
        order,
        moved: counted("moved"),
        failed: counted("failed"),
    })
}

fn order(fields: &Document) -> Option<DrainOrder> {
    let number = |name: &str| fields.get(name).and_then(wire::whole_number);
    let migrate = match fields.get_str("migrate").ok()? {
        "paced" => Migrate::Paced,
        "wait" => Migrate::Wait,
        "none" => Migrate::None,
        _ => return None,
    };
    Some(DrainOrder {
        since_ms: number("since_ms")?,
        deadline_ms: number("deadline_ms"),
        asked_ms: number("asked_ms"),
        migrate,
        per_second: u32::try_from(number("per_second")?).ok()?,
        drained_ms: number("drained_ms"),
    })
}

fn door_doc(document: &Document) -> Option<DoorDoc> {
    let text = |name: &str| document.get_str(name).ok().map(str::to_owned);
    let legs = document.get_array("legs").map(Vec::as_slice).unwrap_or_default();
    let drains = document.get_array("drains").ok();
    Some(DoorDoc {
        id: text("_id")?,
        name: text("name")?,
        public_url: text("public_url"),
        draining: document.get_bool("draining").unwrap_or(false),
        table: text("table").unwrap_or_default(),
        beat: document.get("beat").and_then(wire::whole_number)?,
        legs: legs.iter().filter_map(Bson::as_document).filter_map(node_legs).collect(),
        drains: drains.map(|drains| drains.iter().filter_map(Bson::as_document).filter_map(obeyed).collect()),
    })
}

fn obeyed(fields: &Document) -> Option<(NodeId, i64)> {
    Some((fields.get_str("node").ok()?.parse().ok()?, fields.get("since").and_then(wire::whole_number)?))
}

fn node_legs(fields: &Document) -> Option<(NodeId, Legs)> {
    let count = |name: &str| {
        let whole = fields.get(name).and_then(wire::whole_number).unwrap_or(0);
        u32::try_from(whole.max(0)).unwrap_or(u32::MAX)
    };
    let node = fields.get_str("node").ok()?.parse().ok()?;
    Some((node, Legs { publish: count("publish"), play: count("play") }))
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == DUPLICATE_KEY,
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        _ => false,
    }
}
