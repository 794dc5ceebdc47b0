//! Which stream a file below `/{app}/streams/` belongs to, by AMS's file names (facts/ams.md §3.1).
//!
//! The names are ambiguous (a stream's id may look like a suffix), so this is a guess that decides only which edge is asked
//! first; a viewer's later files follow the stream that he began with, by [`belongs_to`].

use crate::domain::ids::StreamId;

/// Digits of a segment's number (`hlsSegmentFileSuffixFormat`, `%09d`).
const SEGMENT_DIGITS: usize = 9;

/// The stream of a file, which is a path without a leading slash; `None` where its name could not be one.
pub fn stream_of(file: &str) -> Option<StreamId> {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let extension = extension.to_ascii_lowercase();
    // DASH and DRM keep a stream's files in a folder of its own.
    if let Some(owner) = folder.strip_prefix("drm/").and_then(|below| below.split('/').next()) {
        return owner.parse().ok();
    }
    if matches!(&*extension, "mpd" | "m4s") && !folder.is_empty() {
        return folder.rsplit('/').next()?.parse().ok();
    }
    let stem = before_suffix(stem);
    let stem = match &*extension {
        "ts" | "fmp4" | "m4s" => without_number(stem),
        "m3u8" => stem.strip_suffix("_adaptive").unwrap_or(stem),
        _ => stem,
    };
    without_rendition(stem).parse().ok()
}

/// Whether a file may be one of this stream's: its name, or its folder's, begins with the stream's id.
pub fn belongs_to(file: &str, stream: &StreamId) -> bool {
    file.split('/').any(|part| part.starts_with(stream.as_str()))
}

/// What stands before `__`, which AMS puts before a suffix of its own; an id may end in `_` itself.
fn before_suffix(stem: &str) -> &str {
    match stem.find("__") {
        Some(at) if at > 0 => {
            let run = stem[at..].bytes().take_while(|byte| *byte == b'_').count();
            &stem[..at + run - 2]
        }
        _ => stem,
    }
}

/// Without the number of a segment.
fn without_number(stem: &str) -> &str {
    let split = stem.len().saturating_sub(SEGMENT_DIGITS);
    match stem.split_at_checked(split) {
        Some((head, digits)) if !head.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => head,
        _ => stem,
    }
}

/// Without `_{height}p`, `_{height}p{bitrate}kbps` or `_{bitrate}kbps`.
fn without_rendition(stem: &str) -> &str {
    let Some((head, rendition)) = stem.rsplit_once('_').filter(|(head, _)| !head.is_empty()) else { return stem };
    let after_digits = |text: &'_ str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then(|| text[digits..].to_owned())
    };
    let rest = after_digits(rendition);
    let is_rendition = match rest.as_deref() {
        Some("p" | "kbps") => true,
        Some(rest) => rest.strip_prefix('p').and_then(after_digits).as_deref() == Some("kbps"),
        None => false,
    };
    if is_rendition { head } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_leads_to_its_stream_by_amss_names() {
        for (file, stream) in [
            ("s.m3u8", "s"),
            ("s_adaptive.m3u8", "s"),
            ("s_360p800kbps.m3u8", "s"),
            ("s_360p.m3u8", "s"),
            ("s_800kbps.m3u8", "s"),
            ("s000000012.ts", "s"),
            ("cam7000000012.ts", "cam7"),
            ("s_360p800kbps000000012.ts", "s"),
            ("s000000012.fmp4", "s"),
            ("s__init.mp4", "s"),
            ("s___part1.fmp4", "s_"),
            ("s/s.mpd", "s"),
            ("s/s__0segment3.m4s", "s"),
            ("s/init-stream0.m4s", "s"),
            ("drm/s/s.m3u8", "s"),
            ("folder/s.m3u8", "s"),
            ("s.mp4", "s"),
            ("s_240p.mp4", "s"),
            ("a_b.m3u8", "a_b"),
            ("a_1.m3u8", "a_1"),
            ("a_p.m3u8", "a_p"),
            ("s", "s"),
        ] {
            assert_eq!(stream_of(file).as_ref().map(StreamId::as_str), Some(stream), "{file}");
        }
        for file in ["", "a%20b.m3u8", "dir/", ".ts"] {
            assert_eq!(stream_of(file), None, "{file}");
        }
    }

    #[test]
    fn a_later_file_belongs_to_the_stream_that_it_begins_with() {
        let stream: StreamId = "cam".parse().unwrap();
        for file in ["cam-20260101-120000.ts", "cam.m3u8", "cam/init.mp4", "sub/cam000000001.ts"] {
            assert!(belongs_to(file, &stream), "{file}");
        }
        assert!(!belongs_to("other.m3u8", &stream));
    }
}
