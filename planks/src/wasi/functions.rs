//! The functions of `wasi_snapshot_preview1`: names, parameters, implementations.

use super::memory::GuestMemory;
use super::{Args, Errno, Outcome, Stop, Wasi};
use super::{clock, path, process, stat, stream};

/// A function of the interface.
#[derive(Clone, Copy)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its parameters: `i` for `i32`, `l` for `i64`.
    pub params: &'static str,
    run: fn(&mut Wasi, &mut dyn GuestMemory, &Args) -> Outcome,
}

impl Function {
    /// Whether it returns an error number; `proc_exit` returns nothing.
    pub fn has_result(&self) -> bool {
        self.name != "proc_exit"
    }

    /// Runs it: the error number for the guest, or the status with which the guest ended.
    pub fn call(&self, wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &[u64]) -> Result<u32, u32> {
        match (self.run)(wasi, memory, &Args(args)) {
            Ok(()) => Ok(0),
            Err(Stop::Errno(e)) => Ok(e as u32),
            Err(Stop::Exit(status)) => Err(status),
        }
    }
}

const fn f(
    name: &'static str,
    params: &'static str,
    run: fn(&mut Wasi, &mut dyn GuestMemory, &Args) -> Outcome,
) -> Function {
    Function { name, params, run }
}

/// All of them.
pub const FUNCTIONS: &[Function] = &[
    f("args_get", "ii", process::args_get),
    f("args_sizes_get", "ii", process::args_sizes_get),
    f("environ_get", "ii", process::environ_get),
    f("environ_sizes_get", "ii", process::environ_sizes_get),
    f("clock_res_get", "ii", clock::clock_res_get),
    f("clock_time_get", "ili", clock::clock_time_get),
    f("fd_advise", "illi", stat::fd_advise),
    f("fd_allocate", "ill", stat::fd_allocate),
    f("fd_close", "i", stream::fd_close),
    f("fd_datasync", "i", stream::fd_datasync),
    f("fd_fdstat_get", "ii", stat::fd_fdstat_get),
    f("fd_fdstat_set_flags", "ii", stat::fd_fdstat_set_flags),
    f("fd_fdstat_set_rights", "ill", stat::fd_fdstat_set_rights),
    f("fd_filestat_get", "ii", stat::fd_filestat_get),
    f("fd_filestat_set_size", "il", stat::fd_filestat_set_size),
    f("fd_filestat_set_times", "illi", stat::fd_filestat_set_times),
    f("fd_pread", "iiili", pread),
    f("fd_prestat_get", "ii", stat::fd_prestat_get),
    f("fd_prestat_dir_name", "iii", stat::fd_prestat_dir_name),
    f("fd_pwrite", "iiili", pwrite),
    f("fd_read", "iiii", stream::fd_read),
    f("fd_readdir", "iiili", path::fd_readdir),
    f("fd_renumber", "ii", stream::fd_renumber),
    f("fd_seek", "ilii", stream::fd_seek),
    f("fd_sync", "i", stream::fd_sync),
    f("fd_tell", "ii", stream::fd_tell),
    f("fd_write", "iiii", stream::fd_write),
    f("path_create_directory", "iii", path::path_create_directory),
    f("path_filestat_get", "iiiii", stat::path_filestat_get),
    f("path_filestat_set_times", "iiiilli", stat::path_filestat_set_times),
    f("path_link", "iiiiiii", path::path_link),
    f("path_open", "iiiiillii", path::path_open),
    f("path_readlink", "iiiiii", path::path_readlink),
    f("path_remove_directory", "iii", path::path_remove_directory),
    f("path_rename", "iiiiii", path::path_rename),
    f("path_symlink", "iiiii", path::path_symlink),
    f("path_unlink_file", "iii", path::path_unlink_file),
    f("poll_oneoff", "iiii", clock::poll_oneoff),
    f("proc_exit", "i", process::proc_exit),
    f("proc_raise", "i", process::unsupported),
    f("random_get", "ii", process::random_get),
    f("sched_yield", "", clock::sched_yield),
    f("sock_accept", "iii", process::no_socket),
    f("sock_recv", "iiiiii", process::no_socket),
    f("sock_send", "iiiii", process::no_socket),
    f("sock_shutdown", "ii", process::no_socket),
];

fn pread(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    file_position(args.u64(3))?;
    stream::fd_pread(wasi, memory, args)
}

fn pwrite(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    file_position(args.u64(3))?;
    stream::fd_pwrite(wasi, memory, args)
}

/// Positions are signed on the host.
fn file_position(at: u64) -> Result<(), Errno> {
    i64::try_from(at).map(drop).map_err(|_| Errno::Invalid)
}
