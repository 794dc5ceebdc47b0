//! The messages of the load, in AMS's vocabulary.

/// Bytes of the message whose round trip is measured, each way.
pub(crate) const SMALL: usize = 200;
/// Bytes of an SDP message, as a browser's offer with audio, video and a data channel has them.
pub(crate) const SDP: usize = 7000;

pub(crate) fn publish(stream: &str) -> String {
    format!(r#"{{"command":"publish","streamId":"{stream}","token":"","video":true,"audio":true}}"#)
}

pub(crate) fn start(stream: &str) -> String {
    format!(r#"{{"command":"start","streamId":"{stream}"}}"#)
}

/// A candidate, filled up to [`SMALL`] bytes.
pub(crate) fn candidate(stream: &str) -> String {
    let head = format!(
        r#"{{"command":"takeCandidate","streamId":"{stream}","label":0,"id":"0","candidate":"candidate:1 1 udp 2122 "#
    );
    fill(head, SMALL)
}

/// An SDP of [`SDP`] bytes, escaped as JSON has it.
pub(crate) fn configuration(stream: &str, kind: &str) -> String {
    let mut text = format!(
        r#"{{"command":"takeConfiguration","streamId":"{stream}","type":"{kind}","sdp":"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:EEtu\r\n"#
    );
    let line = r"a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n";
    while text.len() + line.len() + 2 < SDP {
        text.push_str(line);
    }
    fill(text, SDP)
}

fn fill(mut text: String, len: usize) -> String {
    let fill = len.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', fill));
    text.push_str("\"}");
    text
}

/// The value of a text field, of JSON that this program or a door wrote.
pub(crate) fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"').map(|(value, _)| value)
}
