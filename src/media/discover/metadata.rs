//! What a virtual machine's cloud says of its public address. Plain HTTP to an address that only this machine's own host
//! answers; whatever is no public address is no answer.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::config::is_global;

/// Longest answer that is read, in bytes: an address is short.
const ANSWER: u64 = 4096;
/// Where all clouds but one have their service.
const LINK_LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
const ALIBABA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 80);

/// One cloud's service.
struct Cloud {
    name: &'static str,
    at: SocketAddr,
    /// The header that asks for a token's lifetime, and the one that brings the token.
    token: Option<(&'static str, &'static str)>,
    /// The service also answers without a token, where that has not been forbidden.
    tokenless: bool,
    /// A header without which it does not answer.
    header: &'static str,
    paths: &'static [&'static str],
}

const CLOUDS: [Cloud; 4] = [
    Cloud {
        name: "Alibaba Cloud",
        at: ALIBABA,
        token: Some(("X-aliyun-ecs-metadata-token-ttl-seconds", "X-aliyun-ecs-metadata-token")),
        tokenless: true,
        header: "",
        // An elastic address, else the fixed one.
        paths: &["/latest/meta-data/eipv4", "/latest/meta-data/public-ipv4"],
    },
    Cloud {
        name: "AWS",
        at: LINK_LOCAL,
        token: Some(("X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token")),
        tokenless: false,
        header: "",
        paths: &["/latest/meta-data/public-ipv4"],
    },
    Cloud {
        name: "Google Cloud",
        at: LINK_LOCAL,
        token: None,
        tokenless: true,
        header: "Metadata-Flavor: Google\r\n",
        paths: &["/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip"],
    },
    Cloud {
        name: "Azure",
        at: LINK_LOCAL,
        token: None,
        tokenless: true,
        header: "Metadata: true\r\n",
        paths: &[
            "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress?api-version=2021-02-01&format=text",
        ],
    },
];

/// The first cloud that names a public address, and that address; else why there is none. `instead` stands in for all
/// services.
pub(super) fn ask(instead: Option<SocketAddr>, limit: Duration) -> Result<(&'static str, IpAddr), String> {
    let (until, (heard, answers)) = (Instant::now() + limit, mpsc::channel());
    for cloud in &CLOUDS {
        let heard = heard.clone();
        let asked = thread::Builder::new().name("metadata".to_owned()).spawn(move || {
            // Who asked may have heard enough.
            let _ = heard.send((cloud.name, cloud.ask(instead.unwrap_or(cloud.at), until)));
        });
        asked.map_err(|error| format!("the cloud's metadata service cannot be asked: {error}"))?;
    }
    drop(heard);
    let mut private = None;
    while let Ok((name, answer)) = answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        match answer {
            Some(ip) if is_global(ip) => return Ok((name, ip)),
            Some(ip) => private = Some((name, ip)),
            None => {}
        }
    }
    Err(match private {
        Some((name, ip)) => format!("the metadata service of {name} names {ip}, which is private"),
        None => "no cloud's metadata service names a public address".to_owned(),
    })
}

impl Cloud {
    fn ask(&self, at: SocketAddr, until: Instant) -> Option<IpAddr> {
        let token = match self.token {
            Some((lifetime, bring)) => {
                let token = request(at, "PUT", "/latest/api/token", &format!("{lifetime}: 60\r\n"), until);
                match token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic())) {
                    Some(token) => format!("{bring}: {token}\r\n"),
                    None if self.tokenless => String::new(),
                    None => return None,
                }
            }
            None => String::new(),
        };
        let headers = format!("{}{token}", self.header);
        self.paths.iter().find_map(|path| request(at, "GET", path, &headers, until)?.parse().ok())
    }
}

/// The trimmed body of a 200; anything else is none.
fn request(at: SocketAddr, method: &str, path: &str, headers: &str, until: Instant) -> Option<String> {
    let left = || Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&at, left()?).ok()?;
    stream.set_write_timeout(Some(left()?)).ok()?;
    let ip = at.ip();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {ip}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !is_whole(&answer) && answer.len() as u64 <= ANSWER {
        // Each read gets what is left, so that a trickle of bytes does not wait longer.
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut part).ok()? {
            0 => break,
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    body(&answer)
}

/// Whether all that `Content-Length` announces is there.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = halves(answer) else { return false };
    length(head).is_some_and(|length| body.len() >= length)
}

fn halves(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]))
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn length(head: &str) -> Option<usize> {
    field(head, "content-length")?.parse().ok()
}

fn body(answer: &[u8]) -> Option<String> {
    let (head, body) = halves(answer)?;
    let mut status = head.lines().next()?.split(' ');
    if !status.next()?.starts_with("HTTP/1.") || status.next()? != "200" {
        return None;
    }
    let body = std::str::from_utf8(body.get(..length(head).unwrap_or(body.len()))?).ok()?;
    let is_chunked = field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    // An address comes in one chunk, behind the line with its length.
    let text = if is_chunked { body.lines().nth(1)? } else { body };
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Long enough for loopback, and what a test of silence takes.
    const BRIEF: Duration = Duration::from_millis(400);

    /// A metadata service that answers each request head as `answer` says, from now on; nothing where that says nothing.
    fn service(answer: fn(&str) -> Option<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                thread::spawn(move || {
                    let (mut head, mut part) = (Vec::new(), [0; 1024]);
                    while halves(&head).is_none() {
                        match stream.read(&mut part) {
                            Ok(read @ 1..) => head.extend_from_slice(&part[..read]),
                            _ => return,
                        }
                    }
                    match answer(&String::from_utf8(head).unwrap()) {
                        Some(answer) => drop(stream.write_all(answer.as_bytes())),
                        // Silent until who asked goes.
                        None => drop(stream.read(&mut part)),
                    }
                });
            }
        });
        at
    }

    fn ok(body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    fn not_found() -> Option<String> {
        Some("HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n198.51.100.9".to_owned())
    }

    fn told(answer: fn(&str) -> Option<String>) -> Result<(&'static str, IpAddr), String> {
        ask(Some(service(answer)), BRIEF)
    }

    #[test]
    fn each_cloud_is_asked_in_its_own_way() {
        let alibaba: fn(&str) -> Option<String> = |head| match head.split(' ').nth(1)? {
            "/latest/api/token" if head.contains("X-aliyun-ecs-metadata-token-ttl-seconds: 60") => ok("to-ken=="),
            "/latest/meta-data/eipv4" if head.contains("X-aliyun-ecs-metadata-token: to-ken==\r\n") => {
                ok("198.51.100.1\n")
            }
            _ => not_found(),
        };
        let aws: fn(&str) -> Option<String> = |head| match head.split(' ').nth(1)? {
            "/latest/api/token" if head.starts_with("PUT ") && head.contains("X-aws-ec2-metadata-token-ttl") => ok("t"),
            "/latest/meta-data/public-ipv4" if head.contains("X-aws-ec2-metadata-token: t\r\n") => ok("198.51.100.2"),
            _ => not_found(),
        };
        let google: fn(&str) -> Option<String> = |head| match head.split(' ').nth(1)? {
            path if path.starts_with("/computeMetadata/") && head.contains("Metadata-Flavor: Google") => {
                Some("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n198.51.100.3\r\n0\r\n\r\n".to_owned())
            }
            _ => not_found(),
        };
        let azure: fn(&str) -> Option<String> = |head| match head.split(' ').nth(1)? {
            path if path.starts_with("/metadata/instance/") && head.contains("Metadata: true") => ok("198.51.100.4"),
            _ => not_found(),
        };
        for (cloud, name, ip) in [
            (alibaba, "Alibaba Cloud", "198.51.100.1"),
            (aws, "AWS", "198.51.100.2"),
            (google, "Google Cloud", "198.51.100.3"),
            (azure, "Azure", "198.51.100.4"),
        ] {
            assert_eq!(told(cloud), Ok((name, ip.parse().unwrap())));
        }
    }

    #[test]
    fn an_older_service_without_tokens_and_without_an_elastic_address_is_understood() {
        let old: fn(&str) -> Option<String> = |head| match head.split(' ').nth(1)? {
            "/latest/meta-data/public-ipv4" if !head.contains("metadata-token") => ok("198.51.100.5"),
            _ => not_found(),
        };
        assert_eq!(told(old), Ok(("Alibaba Cloud", "198.51.100.5".parse().unwrap())));
    }

    #[test]
    fn what_is_no_public_address_is_no_answer() {
        assert!(told(|_| not_found()).unwrap_err().contains("no cloud's metadata service"));
        for body in ["", "no such thing", "198.51.100.1.2", "<html>", "0x7f000001"] {
            let garbage = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            assert_eq!(super::body(garbage.as_bytes()).and_then(|body| body.parse::<IpAddr>().ok()), None, "{body}");
        }
        let garbage: [fn(&str) -> Option<String>; 4] = [
            |_| Some("\u{1}\u{2}\u{3}".repeat(3000)),
            |_| Some("HTTP/1.1 200 OK\r\n\r\n".to_owned()),
            |_| Some("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n198.51.100.1".to_owned()),
            |_| Some("SSH-2.0-OpenSSH\r\n\r\n198.51.100.1".to_owned()),
        ];
        for answer in garbage {
            assert!(told(answer).is_err());
        }
        let private = told(|head| if head.starts_with("PUT ") { ok("t") } else { ok("10.0.0.5") }).unwrap_err();
        assert!(private.contains("10.0.0.5, which is private"), "{private}");
        assert!(told(|_| ok("169.254.169.254")).is_err());
    }

    #[test]
    fn silence_is_waited_for_no_longer_than_the_limit() {
        let begun = Instant::now();
        assert!(told(|_| None).is_err());
        let slow: fn(&str) -> Option<String> =
            |_| Some("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n198.51".to_owned());
        assert!(told(slow).is_err(), "cut short");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(Some(nobody), BRIEF).is_err());
        assert!(begun.elapsed() < 4 * BRIEF, "{:?}", begun.elapsed());
    }
}
