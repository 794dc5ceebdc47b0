//! An attacker who hears all that clients send, fakes any address, and knows every password but the right one.

use std::net::SocketAddr;

use forebay::domain::relay::Credentials;

use super::{
    agents::{Datagram, Truth},
    world::{ATTACK_EVERY, CHAOS, Due, World},
};

impl World {
    pub(super) fn attack(&mut self) {
        if self.now >= self.start + CHAOS {
            return;
        }
        self.after(ATTACK_EVERY, Due::Attack);
        let attacker = SocketAddr::from(([198, 51, 100, self.rng.u8(1..3)], 1000 + self.rng.u16(..3)));
        let victim = self.rng.usize(..self.peers.len());
        let near = SocketAddr::new(self.peers[victim].address.ip(), 9);
        let faked = [attacker, self.peers[victim].address, near][self.rng.usize(..3)];
        let backend = self.peers[victim].generations.last().unwrap().backend;
        let pool = self.rng.u8(..8);
        match self.rng.u8(..8) {
            0..=2 => {
                if let Some((_, copy)) = self.pick_sniffed() {
                    self.count("replays");
                    self.carry(5, Due::AtDoor(attacker, copy));
                }
            }
            3 => {
                if let Some((_, mut copy)) = self.pick_sniffed() {
                    self.damage(&mut copy);
                    self.carry(5, Due::AtDoor(faked, copy));
                }
            }
            4 => {
                let junk = self.junk();
                self.carry(5, Due::AtDoor(faked, junk));
            }
            5 => {
                let junk = self.junk();
                let elsewhere = SocketAddr::new(backend.ip(), backend.port() ^ 1024);
                self.carry(5, Due::AtPool(pool, elsewhere, junk));
            }
            6 => {
                // The node itself may go mad: media on paths that nobody validated.
                let session = self.peers[victim].session;
                let rtp = Datagram { bytes: vec![0x80, 96, 0, 0], truth: Truth::MediaDown { session } };
                self.carry(5, Due::AtPool(pool, backend, rtp));
            }
            _ => self.forge(attacker, victim),
        }
    }

    /// Messages of somebody who knows the ufrags but not the passwords, or the server's password but another name.
    fn forge(&mut self, from: SocketAddr, victim: usize) {
        let id = self.id();
        let real = self.peers[victim].generations.last().unwrap();
        let (server, client) = (real.shown.clone(), real.client.clone());
        if self.rng.bool() {
            let guess = Credentials { ufrag: server.ufrag.clone(), pwd: client.pwd.clone() };
            let bytes = real.forged(guess, client).client_check(id, true).bytes;
            return self.carry(5, Due::AtDoor(from, Datagram { bytes, truth: Truth::Junk }));
        }
        // Before the answer this authenticates, and is found out by it.
        let other = Credentials { ufrag: "else".into(), pwd: client.pwd.clone() };
        let check = real.forged(server, other).client_check(id, false);
        self.carry(5, Due::AtDoor(from, check));
    }

    fn pick_sniffed(&mut self) -> Option<(SocketAddr, Datagram)> {
        let at = self.rng.usize(..self.sniffed.len().max(1));
        self.sniffed.get(at).cloned()
    }

    fn damage(&mut self, datagram: &mut Datagram) {
        datagram.truth = Truth::Junk;
        if self.rng.bool() {
            let keep = self.rng.usize(..datagram.bytes.len());
            datagram.bytes.truncate(keep);
            return;
        }
        let at = self.rng.usize(..datagram.bytes.len());
        datagram.bytes[at] ^= 1 << self.rng.u8(..8);
    }

    fn junk(&mut self) -> Datagram {
        let mut bytes: Vec<u8> = (0..self.rng.usize(..80)).map(|_| self.rng.u8(..)).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0, 22, 0x80, 0x40][self.rng.usize(..4)];
        }
        // As the first flight of a handshake.
        if bytes.len() >= 5 && bytes[0] == 22 && self.rng.bool() {
            bytes[3..5].fill(0);
        }
        Datagram { bytes, truth: Truth::Junk }
    }
}
