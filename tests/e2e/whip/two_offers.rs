//! A viewer that offers and a node that offers: two answers bring them together, and nothing else is needed.

use std::pin::Pin;

use forebay::domain::sdp::answer_both;
use tokio::sync::mpsc;

use crate::support::{
    ams_client::{MediaEvent, MediaOrder, MediaPorts, Plan, Socket, Stack},
    process::Process,
    str0m_peer, webrtc_peer,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_offers_gets_media_and_data_from_a_node_that_offers() {
    let door = Process::start(&super::RELAYED).await;
    let publishers: [(&str, Stack); 2] = [("by-webrtc", webrtc_peer::stack), ("by-str0m", str0m_peer::stack)];
    for (stream, stack) in publishers {
        let publisher = Socket::open(&door.url()).await.unwrap();
        let publish = publisher.begin(Plan::publish(stream), stack);
        publish.until_has("publish_started").await;
        for viewing in [offering_str0m as Stack, offering_webrtc] {
            let viewer = Socket::open(&door.url()).await.unwrap();
            let play = viewer.begin(Plan::play(stream), viewing);
            play.until_has("play_started").await;
            let report = play.until_more_video(30).await;
            assert!(report.audio_packets > 0 && report.marks.contains(stream), "{report:?}");
            assert!(report.trouble.is_empty(), "{:?}", report.trouble);
            play.until("the data channel is open", |report| report.data_open).await;
            play.ask_for_key_frame();
        }
    }
}

fn offering_str0m(plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    offering(plan, ports, str0m_peer::stack)
}

fn offering_webrtc(plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    offering(plan, ports, webrtc_peer::stack)
}

/// Makes a stack that only ever offers look like one that answers.
fn offering(plan: Plan, mut ports: MediaPorts, stack: Stack) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let (orders, to_stack) = mpsc::unbounded_channel();
        let (from_stack, mut events) = mpsc::unbounded_channel();
        tokio::spawn(stack(plan, MediaPorts { orders: to_stack, events: from_stack, report: ports.report.clone() }));
        let mut node = None;
        loop {
            tokio::select! {
                order = ports.orders.recv() => match order {
                    Some(MediaOrder::TakeOffer(sdp)) => {
                        node = Some(sdp);
                        let _ = orders.send(MediaOrder::MakeOffer);
                    }
                    Some(order) => drop(orders.send(order)),
                    None => return,
                },
                Some(event) = events.recv() => if let (MediaEvent::Offer(client), Some(node)) = (event, &node) {
                    match answer_both(&client, node) {
                        Ok(answers) => {
                            let _ = orders.send(MediaOrder::TakeAnswer(answers.to_client));
                            let _ = ports.events.send(MediaEvent::Answer(answers.to_node));
                        }
                        Err(error) => ports.report.trouble("two offers", error),
                    }
                },
            }
        }
    })
}
