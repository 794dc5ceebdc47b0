//! Batched datagrams: `recvmmsg` and `sendmmsg`, UDP segmentation and coalescing, and the kernel's count of overflows.
//!
//! The one file with `unsafe`. No safe library does all of this without allocating per message: one shares its control
//! messages over a batch, another sends one message per call. What is unsafe here is five system calls and the reading of
//! the control messages that they fill. All pointers handed to the kernel are made anew for each call, out of buffers
//! that this struct owns, and are dead after it.
//!
//! ```text
//! recvmmsg ─► slots (64 KiB each: the kernel may coalesce a burst into one) ─► pieces ─► Core ─► line ─► runs ─► sendmmsg
//! ```
//!
//! A socket whose device refuses segmentation sends its datagrams one by one from then on.

#![allow(unsafe_code)]

use std::{
    io::{self, ErrorKind},
    mem::{self, MaybeUninit},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use super::{
    line::{Line, Run},
    wire::{BATCH, Received, SOCKETS, Wire, mapped, note_sent, passing},
};
use crate::telemetry::metrics::WireFacts;

/// Room for what one read brings: the kernel coalesces up to 64 KiB. Not a power of two, lest the beginnings of all
/// slots compete for the same lines of the CPU's caches.
const SLOT: usize = 65_536 + 2048 + 64;
/// Datagrams that one read can bring, coalesced; what a kernel brings beyond them is cut off and counted.
const PIECES: usize = 64;
/// Parts of one `sendmmsg`, over all its messages; what does not fit goes into the next call.
const PARTS: usize = 256;
/// Messages with segments that a socket may refuse before it gets none any more.
const STRIKES: u8 = 16;

/// Room for the control messages that are read: overflows and the size of coalesced datagrams.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// An address as the kernel has it; `family` says which part counts.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// One datagram among the slots.
#[derive(Clone, Copy)]
struct Piece {
    from: SocketAddr,
    start: u32,
    len: u16,
}

/// Buffers of one direction. The pointers in it are made for one call and mean nothing outside it.
struct Messages {
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// Where each message's parts begin.
    begins: Box<[usize]>,
}

// SAFETY: no pointer in `headers` and `parts` is read before the call that it was made for has replaced it, so none
// that another thread made is ever followed.
unsafe impl Send for Messages {}

/// Moves many datagrams per system call.
pub(super) struct Batched {
    sockets: Vec<UdpSocket>,
    /// The sockets are of family IPv6 and serve both.
    v6: bool,
    /// Messages with segments that each socket may still refuse; at 0 it gets none.
    segments: [u8; SOCKETS],
    overflows: [u32; SOCKETS],
    slots: Box<[u8]>,
    pieces: Vec<Piece>,
    line: Line,
    reads: Messages,
    writes: Messages,
    facts: WireFacts,
}

impl Batched {
    /// Takes the sockets over, or gives them back where the system has no batches.
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Result<Self, Vec<UdpSocket>> {
        assert_eq!(sockets.len(), SOCKETS, "a thread has its public socket and its pool");
        let mut wire = Self {
            v6: sockets[0].local_addr().is_ok_and(|at| at.is_ipv6()),
            segments: [STRIKES; SOCKETS],
            overflows: [0; SOCKETS],
            slots: vec![0; BATCH * SLOT].into_boxed_slice(),
            pieces: Vec::with_capacity(BATCH * PIECES),
            line: Line::with_capacity(BATCH * PIECES),
            reads: Messages::new(BATCH, BATCH),
            writes: Messages::new(BATCH, PARTS),
            facts: WireFacts::default(),
            sockets,
        };
        for socket in 0..SOCKETS {
            // Each is an offer: a kernel without it counts no overflows, or brings and takes one datagram per message.
            let _ = wire.set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
            let _ = wire.set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
            if wire.set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_err() {
                wire.segments[socket] = 0;
            }
        }
        match wire.read(0) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(wire.sockets),
            _ => Ok(wire),
        }
    }

    fn set(&self, socket: usize, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
        let len = socklen::<libc::c_int>();
        // SAFETY: `value` is a c_int that lives through the call, and `len` is its size.
        let done = unsafe {
            libc::setsockopt(self.sockets[socket].as_raw_fd(), level, option, ptr::from_ref(&value).cast(), len)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Fills the slots from one socket; returns how many it filled.
    fn read(&mut self, socket: usize) -> io::Result<usize> {
        let reads = &mut self.reads;
        let buffers = self.slots.chunks_exact_mut(SLOT).zip(&mut reads.parts).zip(&mut reads.names);
        for (((slot, part), name), (control, header)) in buffers.zip(reads.controls.iter_mut().zip(&mut reads.headers))
        {
            *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = socklen::<Name>();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = mem::size_of::<Control>() as _;
        }
        let fd = self.sockets[socket].as_raw_fd();
        // SAFETY: there are `BATCH` headers, and each was just given a slot, a name and a control buffer of its own with
        // their true sizes; all of them outlive the call and nothing else refers to them during it.
        let count = unsafe {
            libc::recvmmsg(fd, reads.headers.as_mut_ptr(), BATCH as _, libc::MSG_DONTWAIT as _, ptr::null_mut())
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Makes pieces of what a read left in slot `nth`.
    fn cut(&mut self, nth: usize, socket: usize) {
        let header = &self.reads.headers[nth];
        let len = header.msg_len as usize;
        let (overflows, size) = notes(&header.msg_hdr);
        if let Some(overflows) = overflows {
            self.facts.receive_overflows += u64::from(overflows.wrapping_sub(self.overflows[socket]));
            self.overflows[socket] = overflows;
        }
        let Some(from) = self.reads.names[nth].address(header.msg_hdr.msg_namelen) else { return };
        let start = u32::try_from(nth * SLOT).expect("the slots have a few MiB");
        let piece = |at: usize, len: usize| {
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            Piece { from, start: start + u32::try_from(at).expect("a slot has 64 KiB"), len }
        };
        match size.filter(|size| *size > 0 && *size < len) {
            None => self.pieces.push(piece(0, len)),
            Some(size) => {
                let all = (0..len).step_by(size).map(|at| piece(at, size.min(len - at)));
                self.pieces.extend(all.take(PIECES));
                self.facts.receive_errors += u64::from(len.div_ceil(size) > PIECES);
            }
        }
    }

    /// Sends the runs of one socket.
    fn send(&mut self, socket: usize) {
        let mut next = 0;
        while next < self.line.runs() {
            let (after, messages) = self.address(socket, next);
            if messages > 0 && !self.write(socket, messages, next) {
                return;
            }
            next = after;
        }
    }

    /// Makes messages of this socket's runs from `first` on; returns where it stopped, and how many there are.
    fn address(&mut self, socket: usize, first: usize) -> (usize, usize) {
        let (mut messages, mut parts) = (0, 0);
        for nth in first..self.line.runs() {
            let run = self.line.run(nth);
            if usize::from(run.socket) != socket {
                continue;
            }
            if messages == BATCH || parts + usize::from(run.segments) > PARTS {
                return (nth, messages);
            }
            let begin = parts;
            for datagram in self.line.datagrams(run) {
                let Piece { start, len, .. } = self.pieces[datagram];
                parts = self.writes.add_part(&self.slots[start as usize..][..usize::from(len)], begin, parts);
            }
            self.writes.put(messages, run, begin..parts, self.v6);
            messages += 1;
        }
        (self.line.runs(), messages)
    }

    /// Hands `messages` to the kernel; false: it takes nothing more of this socket now.
    fn write(&mut self, socket: usize, messages: usize, first: usize) -> bool {
        let fd = self.sockets[socket].as_raw_fd();
        let (mut sent, mut again) = (0, true);
        while sent < messages {
            let left = self.writes.aim(sent, messages);
            // SAFETY: these headers name only parts of `writes`, with the lengths that `address` gave them, and the parts
            // name bytes of `slots`, which nothing has written to since; all of it outlives the call.
            let count = unsafe { libc::sendmmsg(fd, left.as_mut_ptr(), left.len() as _, libc::MSG_DONTWAIT as _) };
            if let Ok(count) = usize::try_from(count) {
                sent += count;
                again = true;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => {
                    self.facts.send_full += self.datagrams_from(socket, first, sent);
                    return false;
                }
                // An old ICMP message's error, told to whoever calls next; this datagram has not been tried.
                _ if passing(&error) && again => again = false,
                _ => {
                    self.give_up(socket, first, sent, &error);
                    sent += 1;
                    again = true;
                }
            }
        }
        true
    }

    /// Counts what is lost with message `nth` of the runs from `first` on; one with segments is tried without.
    fn give_up(&mut self, socket: usize, first: usize, nth: usize, error: &io::Error) {
        let Some(run) = self.runs_of(socket, first).nth(nth).copied() else { return };
        if run.segments == 1 {
            self.facts.send_errors += 1;
            return;
        }
        // EIO: the device cannot checksum segments. EINVAL: it, or the way there, cannot carry this size.
        let left = self.segments[socket];
        self.segments[socket] = if error.raw_os_error() == Some(libc::EIO) { 0 } else { left.saturating_sub(1) };
        let to = if self.v6 { mapped(run.to) } else { run.to };
        for datagram in self.line.datagrams(&run) {
            let Piece { start, len, .. } = self.pieces[datagram];
            let bytes = &self.slots[start as usize..][..usize::from(len)];
            if self.sockets[socket].send_to(bytes, to).is_err() {
                self.facts.send_errors += 1;
            }
        }
    }

    /// How many datagrams of this socket are in line from message `nth` of the runs from `first` on.
    fn datagrams_from(&self, socket: usize, first: usize, nth: usize) -> u64 {
        self.runs_of(socket, first).skip(nth).map(|run| u64::from(run.segments)).sum()
    }

    fn runs_of(&self, socket: usize, first: usize) -> impl Iterator<Item = &Run> {
        let runs = (first..self.line.runs()).map(|nth| self.line.run(nth));
        runs.filter(move |run| usize::from(run.socket) == socket)
    }
}

impl Wire for Batched {
    fn descriptors(&self) -> [RawFd; SOCKETS] {
        std::array::from_fn(|nth| self.sockets[nth].as_raw_fd())
    }

    fn receive(&mut self, socket: usize) -> Received {
        self.pieces.clear();
        self.line.clear();
        let count = match self.read(socket) {
            Ok(count) => count,
            Err(error) => {
                let empty = error.kind() == ErrorKind::WouldBlock;
                let again = error.kind() == ErrorKind::Interrupted || passing(&error);
                self.facts.receive_errors += u64::from(!empty && error.kind() != ErrorKind::Interrupted);
                return Received { datagrams: 0, drained: !again };
            }
        };
        for nth in 0..count {
            self.cut(nth, socket);
        }
        Received { datagrams: self.pieces.len(), drained: count < BATCH }
    }

    fn datagram(&self, nth: usize) -> (SocketAddr, &[u8]) {
        let Piece { from, start, len } = self.pieces[nth];
        (from, &self.slots[start as usize..][..usize::from(len)])
    }

    fn forward(&mut self, nth: usize, socket: usize, to: SocketAddr) {
        self.line.push(nth, self.pieces[nth].len.into(), socket, to, self.segments[socket] > 0);
    }

    fn send_other(&mut self, bytes: &[u8], socket: usize, to: SocketAddr) {
        let to = if self.v6 { mapped(to) } else { to };
        note_sent(&mut self.facts, &self.sockets[socket].send_to(bytes, to));
    }

    fn flush(&mut self) {
        for socket in 0..SOCKETS {
            if self.line.uses(socket) {
                self.send(socket);
            }
        }
        self.line.clear();
    }

    fn facts(&self) -> WireFacts {
        self.facts
    }
}

impl Messages {
    fn new(messages: usize, parts: usize) -> Self {
        // SAFETY: all of them are plain numbers and pointers, for which zero is a value.
        let (header, part, name): (libc::mmsghdr, libc::iovec, Name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            headers: vec![header; messages].into(),
            parts: vec![part; parts].into(),
            names: vec![name; messages].into(),
            controls: vec![Control([0; 64]); messages].into(),
            begins: vec![0; messages].into(),
        }
    }

    /// Adds `bytes` to the message that began at part `begin`; returns how many parts there are now. What follows its
    /// predecessor in memory needs none of its own.
    fn add_part(&mut self, bytes: &[u8], begin: usize, parts: usize) -> usize {
        if parts > begin {
            let before = &mut self.parts[parts - 1];
            if before.iov_base.wrapping_byte_add(before.iov_len) == bytes.as_ptr().cast_mut().cast() {
                before.iov_len += bytes.len();
                return parts;
            }
        }
        // The kernel only reads what it sends.
        self.parts[parts] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        parts + 1
    }

    /// Makes message `nth` out of parts that hold the datagrams of `run`; [`Self::aim`] completes it.
    fn put(&mut self, nth: usize, run: &Run, parts: std::ops::Range<usize>, v6: bool) {
        self.begins[nth] = parts.start;
        let header = &mut self.headers[nth].msg_hdr;
        header.msg_namelen = self.names[nth].set(if v6 { mapped(run.to) } else { run.to });
        header.msg_iovlen = parts.len() as _;
        if run.segments == 1 {
            header.msg_controllen = 0;
            return;
        }
        header.msg_control = ptr::from_mut(&mut self.controls[nth]).cast();
        // SAFETY: the control buffer is aligned for a `cmsghdr` and, as the assertion below says, has room for one
        // message with a u16; `msg_control` points to it and `msg_controllen` says no more than it has.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(SEGMENT_NOTE) as _;
            let note = libc::CMSG_FIRSTHDR(header);
            (*note).cmsg_level = libc::SOL_UDP;
            (*note).cmsg_type = libc::UDP_SEGMENT;
            (*note).cmsg_len = libc::CMSG_LEN(SEGMENT_NOTE) as _;
            libc::CMSG_DATA(note).cast::<u16>().write_unaligned(run.size);
        }
    }

    /// Makes the pointers of the messages from `first` to before `end`, for the call that follows.
    fn aim(&mut self, first: usize, end: usize) -> &mut [libc::mmsghdr] {
        let parts = self.parts.as_mut_ptr();
        let buffers = self.names.iter_mut().zip(&mut self.controls).zip(&self.begins);
        for (header, ((name, control), begin)) in self.headers.iter_mut().zip(buffers).take(end).skip(first) {
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_iov = parts.wrapping_add(*begin);
            header.msg_control =
                if header.msg_controllen == 0 { ptr::null_mut() } else { ptr::from_mut(control).cast() };
        }
        &mut self.headers[first..end]
    }
}

/// Bytes of the control message that names the size of segments.
const SEGMENT_NOTE: u32 = mem::size_of::<u16>() as u32;
// SAFETY: only computes.
const _: () = assert!(unsafe { libc::CMSG_SPACE(SEGMENT_NOTE) } as usize <= mem::size_of::<Control>());

impl Name {
    /// Writes `to`; returns how many bytes of it count.
    fn set(&mut self, to: SocketAddr) -> libc::socklen_t {
        match to {
            SocketAddr::V4(to) => {
                // SAFETY: plain numbers, for which zero is a value.
                let mut v4: libc::sockaddr_in = unsafe { zeroed() };
                v4.sin_family = libc::AF_INET as _;
                v4.sin_port = to.port().to_be();
                v4.sin_addr.s_addr = u32::from(*to.ip()).to_be();
                self.v4 = v4;
                socklen::<libc::sockaddr_in>()
            }
            SocketAddr::V6(to) => {
                // SAFETY: plain numbers, for which zero is a value.
                let mut v6: libc::sockaddr_in6 = unsafe { zeroed() };
                v6.sin6_family = libc::AF_INET6 as _;
                v6.sin6_port = to.port().to_be();
                v6.sin6_addr.s6_addr = to.ip().octets();
                v6.sin6_scope_id = to.scope_id();
                self.v6 = v6;
                socklen::<libc::sockaddr_in6>()
            }
        }
    }

    /// What the kernel wrote, `len` bytes of it; an IPv4 client of an IPv6 socket as what it is.
    fn address(&self, len: libc::socklen_t) -> Option<SocketAddr> {
        // SAFETY: the memory is initialised, by zeros if not by the kernel, and all its parts are plain numbers; both
        // families begin with `family`.
        let family = i32::from(unsafe { self.family });
        match family {
            libc::AF_INET if len >= socklen::<libc::sockaddr_in>() => {
                // SAFETY: as above; the kernel says that it is this one.
                let v4 = unsafe { self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 if len >= socklen::<libc::sockaddr_in6>() => {
                // SAFETY: as above; the kernel says that it is this one.
                let v6 = unsafe { self.v6 };
                let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
                Some(match ip.to_ipv4_mapped() {
                    Some(ip) => SocketAddrV4::new(ip, port).into(),
                    None => SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into(),
                })
            }
            _ => None,
        }
    }
}

/// What the kernel noted beside a datagram: overflows of its socket so far, and the size of coalesced ones.
fn notes(header: &libc::msghdr) -> (Option<u32>, Option<usize>) {
    let (mut overflows, mut size) = (None, None);
    // SAFETY: `header` was filled by a receive just now: `msg_control` is a buffer of this struct's and `msg_controllen`
    // what the kernel wrote into it, so the walk stays inside it. The kernel writes whole notes with the types below.
    unsafe {
        let mut note = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = note.as_ref() {
            match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    overflows = Some(libc::CMSG_DATA(note).cast::<u32>().read_unaligned());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let given = libc::CMSG_DATA(note).cast::<libc::c_int>().read_unaligned();
                    size = usize::try_from(given).ok();
                }
                _ => {}
            }
            note = libc::CMSG_NXTHDR(header, note);
        }
    }
    (overflows, size)
}

/// A value whose bytes are all zero.
///
/// # Safety
/// All zeros must be a value of `T`.
unsafe fn zeroed<T>() -> T {
    // SAFETY: the caller's promise.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).expect("an address has a few bytes")
}
