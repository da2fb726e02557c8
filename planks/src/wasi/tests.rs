//! The functions against a memory of one page.

use super::*;
use std::sync::{Arc, Mutex};

struct Page(Vec<u8>);

impl GuestMemory for Page {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, address: u32, into: &mut [u8]) -> Result<(), Errno> {
        let from = self.0.get(address as usize..address as usize + into.len()).ok_or(Errno::Fault)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn write(&mut self, address: u32, bytes: &[u8]) -> Result<(), Errno> {
        let to = self.0.get_mut(address as usize..address as usize + bytes.len()).ok_or(Errno::Fault)?;
        to.copy_from_slice(bytes);
        Ok(())
    }
}

impl Page {
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }
}

struct Guest {
    wasi: Wasi,
    memory: Page,
    out: Arc<Mutex<Vec<u8>>>,
}

fn guest(args: &[&str], input: &[u8]) -> Guest {
    let out = Arc::new(Mutex::new(Vec::new()));
    let kept = || Output::Kept(out.clone());
    let args = args.iter().map(|a| a.to_string()).collect();
    let wasi = Wasi::new(args, Input::Bytes(io::Cursor::new(input.to_vec())), kept(), kept());
    Guest { wasi, memory: Page(vec![0; 65536]), out }
}

impl Guest {
    fn call(&mut self, name: &str, args: &[u64]) -> Result<u32, u32> {
        let function = FUNCTIONS.iter().find(|f| f.name == name).unwrap();
        assert_eq!(function.params.len(), args.len(), "{name}");
        function.call(&mut self.wasi, &mut self.memory, args)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn iovec(&mut self, at: usize, address: u32, length: u32) {
        self.put(at, &address.to_le_bytes());
        self.put(at + 4, &length.to_le_bytes());
    }

    fn open(&mut self, path: &str, oflags: u64, rights: u64) -> Result<u32, u32> {
        self.put(1000, path.as_bytes());
        match self.call("path_open", &[3, 0, 1000, path.len() as u64, oflags, rights, 0, 0, 2000])? {
            0 => Ok(self.memory.u32(2000)),
            e => Err(e),
        }
    }
}

fn directory(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("planks-wasi-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn arguments_are_laid_out_as_argv() {
    let mut g = guest(&["prog", "x y"], b"");
    assert_eq!(g.call("args_sizes_get", &[0, 4]), Ok(0));
    assert_eq!((g.memory.u32(0), g.memory.u32(4)), (2, 9));
    assert_eq!(g.call("args_get", &[16, 64]), Ok(0));
    assert_eq!((g.memory.u32(16), g.memory.u32(20)), (64, 69));
    assert_eq!(&g.memory.0[64..73], b"prog\0x y\0");
}

#[test]
fn writing_gathers_buffers_in_order() {
    let mut g = guest(&[], b"");
    g.put(100, b"hello, ");
    g.put(200, b"world\n");
    g.iovec(0, 100, 7);
    g.iovec(8, 200, 6);
    assert_eq!(g.call("fd_write", &[1, 0, 2, 16]), Ok(0));
    assert_eq!(g.memory.u32(16), 13);
    assert_eq!(*g.out.lock().unwrap(), b"hello, world\n");
}

#[test]
fn reading_scatters_and_reports_the_end() {
    let mut g = guest(&[], b"abcdef");
    g.iovec(0, 100, 2);
    g.iovec(8, 200, 10);
    assert_eq!(g.call("fd_read", &[0, 0, 2, 16]), Ok(0));
    assert_eq!(g.memory.u32(16), 6);
    assert_eq!((&g.memory.0[100..102], &g.memory.0[200..204]), (&b"ab"[..], &b"cdef"[..]));
    assert_eq!(g.call("fd_read", &[0, 0, 2, 16]), Ok(0));
    assert_eq!(g.memory.u32(16), 0);
}

#[test]
fn addresses_outside_the_memory_are_faults() {
    let mut g = guest(&["a"], b"");
    g.iovec(0, 65530, 100);
    for (name, args) in [
        ("fd_write", &[1u64, 0, 1, 16][..]),
        ("fd_write", &[1, u32::MAX as u64, 2, 16]),
        ("args_get", &[u32::MAX as u64, 0]),
        ("random_get", &[65000, u32::MAX as u64]),
        ("clock_time_get", &[0, 0, 65535]),
    ] {
        assert_eq!(g.call(name, args), Ok(Errno::Fault as u32), "{name}");
    }
}

#[test]
fn unknown_descriptors_are_refused_by_every_function() {
    let mut g = guest(&[], b"");
    for f in FUNCTIONS.iter().filter(|f| f.name.starts_with("fd_")) {
        let mut args = vec![0u64; f.params.len()];
        args[0] = 77;
        assert_eq!(g.call(f.name, &args), Ok(Errno::BadFd as u32), "{}", f.name);
    }
}

#[test]
fn every_function_survives_any_arguments() {
    let dir = directory("any");
    let mut g = guest(&["a"], b"x");
    g.wasi.preopen(&dir, "/").unwrap();
    let odd = [0u64, 1, 3, 65535, 65536, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 63];
    let mut state = 1u64;
    for round in 0..400 {
        for f in FUNCTIONS.iter().filter(|f| f.name != "proc_exit" && f.name != "poll_oneoff") {
            let args: Vec<u64> = (0..f.params.len())
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    odd[(state >> 33) as usize % odd.len()]
                })
                .collect();
            // Files of 2^63 bytes and the like are for the host's file system to refuse.
            if f.name == "fd_allocate" || f.name == "fd_filestat_set_size" {
                continue;
            }
            let _ = g.call(f.name, &args);
            if round % 50 == 0 {
                g.memory.0.fill((state >> 40) as u8);
            }
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn files_are_created_written_read_and_listed() {
    let dir = directory("files");
    let mut g = guest(&[], b"");
    g.wasi.preopen(&dir, "/data").unwrap();
    assert_eq!(g.call("fd_prestat_get", &[3, 0]), Ok(0));
    assert_eq!(g.memory.u32(4), 5);
    assert_eq!(g.call("fd_prestat_dir_name", &[3, 0, 5]), Ok(0));
    assert_eq!(&g.memory.0[..5], b"/data");
    assert_eq!(g.call("fd_prestat_get", &[4, 0]), Ok(Errno::BadFd as u32));

    let fd = g.open("a.txt", 1, 1 << 1 | 1 << 6).unwrap();
    g.put(100, b"plank");
    g.iovec(0, 100, 5);
    assert_eq!(g.call("fd_write", &[fd.into(), 0, 1, 16]), Ok(0));
    assert_eq!(g.call("fd_seek", &[fd.into(), (-2i64) as u64, 2, 24]), Ok(0));
    g.iovec(0, 300, 50);
    assert_eq!(g.call("fd_read", &[fd.into(), 0, 1, 16]), Ok(0));
    assert_eq!((g.memory.u32(16), &g.memory.0[300..302]), (2, &b"nk"[..]));
    assert_eq!(g.call("fd_filestat_get", &[fd.into(), 400]), Ok(0));
    assert_eq!((g.memory.0[416], g.memory.u32(432)), (4, 5));
    assert_eq!(g.call("fd_close", &[fd.into()]), Ok(0));

    assert_eq!(g.call("fd_readdir", &[3, 4096, 4096, 0, 16]), Ok(0));
    let length = g.memory.u32(16) as usize;
    let listing = String::from_utf8_lossy(&g.memory.0[4096..4096 + length]).into_owned();
    assert!(listing.contains("a.txt"));
    assert_eq!(std::fs::read(dir.join("a.txt")).unwrap(), b"plank");

    g.put(1000, b"a.txt");
    assert_eq!(g.call("path_unlink_file", &[3, 1000, 5]), Ok(0));
    assert_eq!(g.open("a.txt", 0, 2), Err(Errno::NoEntry as u32));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn no_path_leaves_the_given_directory() {
    let dir = directory("inside");
    std::os::unix::fs::symlink("/etc", dir.join("out")).unwrap();
    let mut g = guest(&[], b"");
    g.wasi.preopen(&dir, "/").unwrap();
    for path in ["../x", "/etc/passwd", "out/passwd", "a/../../x"] {
        assert!(g.open(path, 0, 2).is_err(), "{path}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn exit_ends_the_guest_with_its_status() {
    let mut g = guest(&[], b"");
    assert_eq!(g.call("proc_exit", &[42]), Err(42));
    assert_eq!(g.wasi.exit_status(), Some(42));
}

#[test]
fn a_clock_subscription_is_due_after_its_time() {
    let mut g = guest(&[], b"");
    g.put(0, &7u64.to_le_bytes());
    g.put(16, &1u64.to_le_bytes());
    g.put(24, &2_000_000u64.to_le_bytes());
    let before = std::time::Instant::now();
    assert_eq!(g.call("poll_oneoff", &[0, 100, 1, 200]), Ok(0));
    assert!(before.elapsed() >= std::time::Duration::from_millis(2));
    assert_eq!((g.memory.u32(200), g.memory.0[100], g.memory.0[110]), (1, 7, 0));
}

#[test]
fn a_path_longer_than_the_host_takes_is_not_copied() {
    let dir = directory("long");
    let mut g = guest(&[], b"");
    g.wasi.preopen(&dir, "/").unwrap();
    assert_eq!(g.call("path_unlink_file", &[3, 0, 4097]), Ok(Errno::NameTooLong as u32));
    assert_eq!(g.call("path_unlink_file", &[3, 0, u32::MAX.into()]), Ok(Errno::NameTooLong as u32));
    std::fs::remove_dir_all(dir).unwrap();
}
