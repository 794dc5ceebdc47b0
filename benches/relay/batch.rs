//! Many datagrams per system call, for the load and for the loops that the relay is compared with; and a thread's CPU.
//!
//! The safe libraries at hand cannot name a source address or a segment size for each message of a batch. Addresses are
//! IPv4, and control messages are laid out as 64-bit Linux has them.

#![allow(unsafe_code, reason = "five system calls that no safe library at hand offers")]

use std::{
    fs, io, mem,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    ptr, thread,
    time::{Duration, Instant},
};

/// Messages of one call.
pub(crate) const MESSAGES: usize = 64;
/// A thread that was started has its name by then.
const STARTS: Duration = Duration::from_secs(5);
/// A control message's header: its length, level and type.
const NOTE_HEADER: usize = 16;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 128]);

/// A message to send: bytes of a slot.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    /// Where the bytes are.
    pub(crate) slot: usize,
    pub(crate) len: usize,
    /// The source address; `None`: the socket's own.
    pub(crate) from: Option<Ipv4Addr>,
    pub(crate) to: SocketAddrV4,
    /// The kernel is to cut the message into datagrams of this length.
    pub(crate) segment: Option<u16>,
}

/// What came in one slot.
#[derive(Clone, Copy)]
pub(crate) struct In {
    pub(crate) len: usize,
    pub(crate) from: SocketAddrV4,
    /// The length of each datagram, where the kernel joined several.
    pub(crate) segment: Option<u16>,
    /// When it reached the socket, since 1970; only where the socket was asked to tell.
    pub(crate) at: Option<Duration>,
}

/// Buffers for one batch in either direction.
pub(crate) struct Batch {
    slots: Box<[u8]>,
    slot: usize,
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
}

impl Batch {
    /// Slots of `slot` bytes each.
    pub(crate) fn new(slot: usize) -> Self {
        // SAFETY: all of them are plain numbers and pointers, for which zero is a value.
        let (header, part, name) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            slots: vec![0; MESSAGES * slot].into(),
            slot,
            headers: vec![header; MESSAGES].into(),
            parts: vec![part; MESSAGES].into(),
            names: vec![name; MESSAGES].into(),
            controls: vec![Control([0; 128]); MESSAGES].into(),
        }
    }

    pub(crate) fn slot(&self, nth: usize) -> &[u8] {
        &self.slots[nth * self.slot..][..self.slot]
    }

    pub(crate) fn slot_mut(&mut self, nth: usize) -> &mut [u8] {
        &mut self.slots[nth * self.slot..][..self.slot]
    }

    /// Fills slots from the first on; returns how many. `flags` are those of `recvmmsg`.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, flags: libc::c_int) -> io::Result<usize> {
        for (nth, slot) in self.slots.chunks_exact_mut(self.slot).enumerate() {
            self.parts[nth] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut self.headers[nth].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.names[nth]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as _;
            header.msg_iov = &raw mut self.parts[nth];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[nth].0.as_mut_ptr().cast();
            header.msg_controllen = mem::size_of::<Control>() as _;
        }
        // SAFETY: there are `MESSAGES` headers, and each was just given a slot, a name and a control buffer of its own
        // with their true sizes; all of them outlive the call and nothing else refers to them during it.
        let count = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), MESSAGES as _, flags as _, ptr::null_mut())
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// What the last receive left in a slot.
    pub(crate) fn received(&self, nth: usize) -> In {
        let (header, name) = (&self.headers[nth], &self.names[nth]);
        let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
        let from = SocketAddrV4::new(ip, u16::from_be(name.sin_port));
        let mut found = In { len: header.msg_len as usize, from, segment: None, at: None };
        let mut notes = &self.controls[nth].0[..header.msg_hdr.msg_controllen];
        while notes.len() > NOTE_HEADER {
            let len = usize::try_from(u64::from_ne_bytes(part(notes, 0))).unwrap_or(0);
            if len <= NOTE_HEADER || len > notes.len() {
                break;
            }
            match (i32::from_ne_bytes(part(notes, 8)), i32::from_ne_bytes(part(notes, 12))) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    found.segment = u16::try_from(i32::from_ne_bytes(part(notes, NOTE_HEADER))).ok();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let seconds = u64::from_ne_bytes(part(notes, NOTE_HEADER));
                    let nanos = u64::from_ne_bytes(part(notes, NOTE_HEADER + 8));
                    found.at = Some(Duration::from_secs(seconds) + Duration::from_nanos(nanos));
                }
                _ => {}
            }
            notes = &notes[len.next_multiple_of(8).min(notes.len())..];
        }
        found
    }

    /// Sends them all, in as few calls as it takes. What the receiver has no room for is lost, as on a network.
    pub(crate) fn send(&mut self, socket: &UdpSocket, outs: &[Out]) -> io::Result<()> {
        for (nth, out) in outs.iter().enumerate() {
            assert!(out.len <= self.slot && out.slot < MESSAGES, "the bytes are those of one slot");
            let bytes = self.slots[out.slot * self.slot..].as_mut_ptr();
            self.parts[nth] = libc::iovec { iov_base: bytes.cast(), iov_len: out.len };
            let name = &mut self.names[nth];
            name.sin_family = libc::AF_INET as _;
            name.sin_port = out.to.port().to_be();
            name.sin_addr.s_addr = u32::from(*out.to.ip()).to_be();
            let control = &mut self.controls[nth].0;
            let noted = out.write_notes(control);
            let header = &mut self.headers[nth].msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as _;
            header.msg_iov = &raw mut self.parts[nth];
            header.msg_iovlen = 1;
            header.msg_control = if noted == 0 { ptr::null_mut() } else { control.as_mut_ptr().cast() };
            header.msg_controllen = noted as _;
        }
        let mut sent = 0;
        while sent < outs.len() {
            let left = &mut self.headers[sent..outs.len()];
            // SAFETY: each of these headers was just given a name, one part and a control buffer with their true sizes;
            // all of them, and the slots that the parts name, outlive the call, which only reads them.
            let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), left.len() as _, 0) };
            match usize::try_from(count) {
                Ok(count) => sent += count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Out {
    /// Writes the control messages; returns how many bytes they take.
    fn write_notes(&self, into: &mut [u8]) -> usize {
        let mut at = 0;
        let mut note = |level: i32, kind: i32, data: &[u8]| {
            let note = &mut into[at..];
            note[..8].copy_from_slice(&((NOTE_HEADER + data.len()) as u64).to_ne_bytes());
            note[8..12].copy_from_slice(&level.to_ne_bytes());
            note[12..16].copy_from_slice(&kind.to_ne_bytes());
            note[NOTE_HEADER..][..data.len()].copy_from_slice(data);
            at += (NOTE_HEADER + data.len()).next_multiple_of(8);
        };
        if let Some(from) = self.from {
            // struct in_pktinfo: an interface, the source, an address that only receivers read.
            let mut data = [0; 12];
            data[4..8].copy_from_slice(&from.octets());
            note(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        if let Some(segment) = self.segment {
            note(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        at
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

/// Whether the kernel may join datagrams of one sender on their way into this socket.
pub(crate) fn set_joined(socket: &UdpSocket, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, on)
}

/// Whether the kernel notes when each datagram reaches this socket.
pub(crate) fn set_stamped(socket: &UdpSocket, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on)
}

fn set(socket: &UdpSocket, level: i32, option: i32, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    let len = mem::size_of::<libc::c_int>() as _;
    // SAFETY: `value` is a c_int that lives through the call, and `len` is its size.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A thread of this process, as the kernel knows it.
#[derive(Clone, Copy)]
pub(crate) struct Thread(libc::pid_t);

impl Thread {
    /// The calling one.
    pub(crate) fn this() -> Self {
        // SAFETY: takes nothing and cannot fail.
        Self(unsafe { libc::gettid() })
    }

    /// The one of this name, as soon as it has taken it.
    pub(crate) fn named(name: &str) -> io::Result<Self> {
        let end = Instant::now() + STARTS;
        while Instant::now() < end {
            for task in fs::read_dir("/proc/self/task")? {
                let task = task?;
                let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                if comm.trim_end() == name {
                    let id = task.file_name().to_str().and_then(|id| id.parse().ok());
                    return id.map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into());
                }
            }
            thread::yield_now();
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no thread is called {name}")))
    }

    /// Binds it to one core, where the system allows that.
    pub(crate) fn pin(self, core: usize) {
        // SAFETY: a set of cores is plain bits, for which zero is a value; `core` is below their number; the kernel
        // reads as many bytes as it is told.
        unsafe {
            let mut cores: libc::cpu_set_t = mem::zeroed();
            libc::CPU_SET(core % libc::CPU_SETSIZE as usize, &mut cores);
            libc::sched_setaffinity(self.0, mem::size_of::<libc::cpu_set_t>(), &raw const cores);
        }
    }

    /// CPU time that the kernel charged it so far, softirq work on its time included.
    pub(crate) fn cpu(self) -> Duration {
        // The kernel's name of a thread's own clock (`MAKE_THREAD_CPUCLOCK`): per thread (4), as scheduled (2).
        let clock = (!self.0 << 3) | 6;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec that lives through the call.
        let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
        assert_eq!(done, 0, "a thread of this process has a clock");
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }
}
