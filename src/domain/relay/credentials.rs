//! One side's ICE short-term credentials: shown by nobody, wiped when dropped.

use std::{fmt, hint, mem};

/// What an SDP calls `ice-ufrag` and `ice-pwd`, of one side and one generation.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user fragment: 4 to 256 ICE characters (RFC 8839 §5.4). Names the session, so logs hold it hashed at most.
    pub ufrag: Box<str>,
    /// The password: 22 to 256 ICE characters. Never logged.
    pub pwd: Box<str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        let mut pwd = mem::take(&mut self.pwd).into_boxed_bytes();
        pwd.fill(0);
        // Without a reader the compiler may leave the writes out.
        hint::black_box(&pwd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_show_neither_part_in_logs() {
        let shown = format!("{:?}", Credentials { ufrag: "vYna".into(), pwd: "secretsecretsecretsecret".into() });

        assert!(!shown.contains("vYna") && !shown.contains("secret"), "{shown}");
    }
}
