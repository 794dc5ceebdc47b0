//! The public listeners of a running door: TLS, HTTP/2, PROXY headers, seats, and clients that mean it harm.

mod abuse;
mod acme;
mod http2;
mod proxy;
mod tls;
