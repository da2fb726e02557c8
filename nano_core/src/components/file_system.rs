//! The file system: names of files over the boot archive, which is read-only, and a disk in memory in front of it.
//!
//! Both disks are the kernel's ([`Disks`]); a file system reads them, appends to the second, and has no other state. So any version of it,
//! and the native default, can go on where another stopped. What the cell says is believed as far as the disks bear it out: an
//! extent must lie on its disk, and an entry must be a whole one to be committed.

use super::Component;
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use lock_api::RawMutex as _;
use namespace_bridge::{Caller, CrateNamespace, DefineError, FuncError, HostError, LoadedCrate, TypedFunc};
use nano_core::{
    archive,
    disks::{Disk, DiskError, Disks, Extent, Place},
};
use runtime_port::{
    bare_metal::memory::frame_use,
    heap,
    sync::{Mutex, MutexGuard, RawMutex},
};

/// What is asked of the file system, beside the disks.
struct Desk {
    disks: Disks<'static>,
    /// The name that the question is about.
    name: String,
    /// The content that is to be written.
    content: Vec<u8>,
    /// What went wrong in the cell's last attempt to write.
    refused: Option<DiskError>,
}

static DESK: Mutex<Desk> = Mutex::const_new(
    RawMutex::INIT,
    Desk { disks: Disks::new(&[], 0), name: String::new(), content: Vec::new(), refused: None },
);

/// One question at a time, so that the desk holds one.
static TURN: Mutex<()> = Mutex::const_new(RawMutex::INIT, ());

/// A file system over the disks. Every question is asked with the desk laid out for it, and the desk unlocked.
pub trait FileSystem {
    /// The file of the desk's name.
    fn find(&self) -> Option<Extent>;

    /// The first file at this place or behind, and where the next may be.
    fn next(&self, from: Place) -> Option<(Place, Place)>;

    /// Writes the desk's content under the desk's name.
    ///
    /// # Errors
    /// The disk refuses.
    fn write(&self) -> Result<(), DiskError>;

    /// Removes the file of the desk's name.
    ///
    /// # Errors
    /// There is none, or the disk refuses.
    fn remove(&self) -> Result<(), DiskError>;
}

/// The native default: what [`Disks`] itself can do.
#[derive(Debug)]
pub struct Native;

impl FileSystem for Native {
    fn find(&self) -> Option<Extent> {
        let desk = DESK.lock();
        desk.disks.find(&desk.name)
    }

    fn next(&self, from: Place) -> Option<(Place, Place)> {
        DESK.lock().disks.next(from)
    }

    fn write(&self) -> Result<(), DiskError> {
        let desk = &mut *DESK.lock();
        desk.disks.write(&desk.name, &desk.content)
    }

    fn remove(&self) -> Result<(), DiskError> {
        let desk = &mut *DESK.lock();
        desk.disks.remove(&desk.name)
    }
}

/// The cell `file_system` (its text says what its functions are).
pub struct ByCell;

/// Handles of the cell's functions.
pub struct Handles {
    find: TypedFunc<(), (i32, i32, i32)>,
    next: TypedFunc<(i32, i32), (i32, i32, i32)>,
    write: TypedFunc<(), i32>,
    remove: TypedFunc<(), i32>,
}

impl Handles {
    fn of(cell: &Arc<LoadedCrate>) -> Result<Self, FuncError> {
        Ok(Self {
            find: cell.typed_func("find")?,
            next: cell.typed_func("next")?,
            write: cell.typed_func("write")?,
            remove: cell.typed_func("remove")?,
        })
    }
}

/// The component.
pub static COMPONENT: Component<Handles> = Component::new("file_system", Handles::of);

/// Reads `(disk, offset, len)` with `disk` −1 for none, and offsets and lengths that are unsigned.
fn extent((disk, offset, len): (i32, i32, i32)) -> Result<Option<Extent>, String> {
    if disk == -1 {
        return Ok(None);
    }
    let disk = Disk::new(disk).ok_or_else(|| format!("disk {disk}: there is no such disk"))?;
    Ok(Some(Extent { disk, offset: offset as u32 as usize, len: len as u32 as usize }))
}

impl FileSystem for ByCell {
    fn find(&self) -> Option<Extent> {
        let sense = |answer| {
            let found = extent(answer)?;
            if found.is_some_and(|e| DESK.lock().disks.read(e).is_none()) {
                return Err(format!("{found:?} is not on the disk"));
            }
            Ok(found)
        };
        COMPONENT.ask(|cell| cell.find.call(()), sense).unwrap_or_else(|| Native.find())
    }

    fn next(&self, from: Place) -> Option<(Place, Place)> {
        let sense = |answer: (i32, i32, i32)| {
            // The third number is where the entry ends.
            let Some(Extent { disk, offset, len: end }) = extent(answer)? else { return Ok(None) };
            let (place, next) = (Place { disk, offset }, Place { disk, offset: end });
            if place < from || next <= place || DESK.lock().disks.file_at(place).is_none() {
                return Err(format!("no file at {offset:#x} of {disk:?} behind {from:?}"));
            }
            Ok(Some((place, next)))
        };
        let question = |cell: &Handles| cell.next.call((from.disk as i32, from.offset as i32));
        COMPONENT.ask(question, sense).unwrap_or_else(|| Native.next(from))
    }

    fn write(&self) -> Result<(), DiskError> {
        change(|cell| cell.write.call(())).unwrap_or_else(|| Native.write())
    }

    fn remove(&self) -> Result<(), DiskError> {
        change(|cell| cell.remove.call(())).unwrap_or_else(|| Native.remove())
    }
}

/// Asks the cell to change something. The answer is believed only if it is what the disk itself said.
fn change(question: impl FnOnce(&Handles) -> Result<i32, namespace_bridge::Trap>) -> Option<Result<(), DiskError>> {
    let before = {
        let mut desk = DESK.lock();
        desk.disks.revert();
        desk.refused = None;
        desk.disks.bytes(Disk::Memory).len()
    };
    let sense = |answer| {
        let desk = DESK.lock();
        let changed = desk.disks.bytes(Disk::Memory).len() > before;
        match (answer, desk.refused) {
            (0, _) if changed => Ok(Ok(())),
            (1, Some(why)) if !changed => Ok(Err(why)),
            (2, _) if !changed && desk.disks.find(&desk.name).is_none() => Ok(Err(DiskError::NotFound)),
            _ => Err(format!("status {answer}, but the disk was {}", if changed { "changed" } else { "not changed" })),
        }
    };
    let outcome = COMPONENT.ask(question, sense);
    DESK.lock().disks.revert();
    outcome
}

/// Names the disks' contents: the boot archive, and room in memory.
pub fn init(archive: &'static [u8]) {
    /// Part of the free memory that the disk may take.
    const SHARE: usize = 4;
    let free = frame_use().free * kernel_config::memory::PAGE_SIZE;
    DESK.lock().disks = Disks::new(archive, free / SHARE);
}

/// Lays a question out and asks it.
fn about<R>(name: &str, content: Vec<u8>, ask: impl FnOnce(&dyn FileSystem) -> R) -> R {
    let _turn = TURN.lock();
    {
        let mut desk = DESK.lock();
        desk.name = name.trim_start_matches("./").trim_start_matches('/').into();
        desk.content = content;
    }
    let answer = ask(&ByCell);
    DESK.lock().content = Vec::new();
    answer
}

/// The content of a file.
///
/// # Errors
/// There is none, or no memory for a copy.
pub fn read(name: &str) -> Result<Vec<u8>, DiskError> {
    about(name, Vec::new(), |fs| {
        let extent = fs.find().ok_or(DiskError::NotFound)?;
        let desk = DESK.lock();
        let bytes = desk.disks.read(extent).ok_or(DiskError::NotFound)?;
        heap::try_to_vec(bytes).map_err(|_| DiskError::NoMemory)
    })
}

/// Writes a file. When the disk is full, what counts no more on it is left out first.
///
/// # Errors
/// The disk refuses; nothing has changed.
pub fn write(name: &str, content: Vec<u8>) -> Result<(), DiskError> {
    archive::header(name, Some(content.len())).ok_or(DiskError::BadName)?;
    about(name, content, |fs| with_room(|| fs.write()))
}

/// Removes a file.
///
/// # Errors
/// There is none, or the disk refuses; nothing has changed.
pub fn remove(name: &str) -> Result<(), DiskError> {
    about(name, Vec::new(), |fs| with_room(|| fs.remove()))
}

fn with_room(change: impl Fn() -> Result<(), DiskError>) -> Result<(), DiskError> {
    match change() {
        Err(DiskError::Full(_)) if DESK.lock().disks.compact() > 0 => change(),
        outcome => outcome,
    }
}

/// Names and sizes of all files.
pub fn list() -> Vec<(String, usize)> {
    about("", Vec::new(), |fs| {
        let mut files = Vec::new();
        let mut from = Place::FIRST;
        while let Some((place, next)) = fs.next(from) {
            let desk = DESK.lock();
            files.extend(desk.disks.file_at(place).map(|(name, size)| (name.to_string(), size)));
            from = next;
        }
        files
    })
}

/// Bytes of the largest file that can be written.
pub fn room() -> usize {
    (frame_use().free * kernel_config::memory::PAGE_SIZE) / 4
}

/// Defines what the cell imports: the disks, and the question. Who else imports that gets an error.
pub fn define_disks(namespace: &CrateNamespace) -> Result<(), DefineError> {
    let bytes_of = |desk: &Desk, disk: i32| Disk::new(disk).map(|d| desk.disks.bytes(d).len());
    namespace.define("disk", "size", move |cell: &Caller, disk: i32| {
        desk_for(cell).map(|desk| bytes_of(&desk, disk).unwrap_or(0) as i32)
    })?;
    namespace.define("disk", "read", |cell: &Caller, disk: i32, offset: i32, to: i32, len: i32| {
        let desk = desk_for(cell)?;
        let (offset, len) = (offset as u32 as usize, len as u32 as usize);
        let bytes = Disk::new(disk).and_then(|disk| desk.disks.read(Extent { disk, offset, len }));
        match bytes {
            Some(bytes) => cell.write(u64::from(to as u32), bytes).map(|()| 0).map_err(HostError::from),
            None => Ok(-1),
        }
    })?;
    namespace.define("disk", "append", |cell: &Caller, from: i32, len: i32| {
        let bytes = cell.read_vec(u64::from(from as u32), u64::from(len as u32)).map_err(HostError::from)?;
        change_disk(cell, |disks, _| disks.append(&bytes))
    })?;
    namespace
        .define("disk", "append_content", |cell: &Caller| change_disk(cell, |disks, content| disks.append(content)))?;
    namespace.define("disk", "commit", |cell: &Caller| change_disk(cell, |disks, _| disks.commit()))?;
    namespace.define("request", "name", |cell: &Caller, to: i32, most: i32| {
        let desk = desk_for(cell)?;
        let name = desk.name.as_bytes();
        let copied = name.get(..most as u32 as usize).unwrap_or(name);
        cell.write(u64::from(to as u32), copied).map(|()| name.len() as i32).map_err(HostError::from)
    })?;
    namespace
        .define("request", "content_size", |cell: &Caller| desk_for(cell).map(|desk| desk.content.len() as i32))?;
    Ok(())
}

/// The desk, for the file system's cell. Cells of any origin share its namespace, and none of them has a say over the others' files.
fn desk_for(cell: &Caller) -> Result<MutexGuard<'static, Desk>, HostError> {
    match cell.cell() == Some(COMPONENT.name) {
        true => Ok(DESK.lock()),
        false => Err(format!("only the cell `{}` has the disks", COMPONENT.name).into()),
    }
}

/// Changes the disk in memory. 0, or −1 with the reason noted.
fn change_disk(
    cell: &Caller,
    change: impl FnOnce(&mut Disks<'static>, &[u8]) -> Result<(), DiskError>,
) -> Result<i32, HostError> {
    let mut desk = desk_for(cell)?;
    let Desk { disks, content, refused, .. } = &mut *desk;
    *refused = change(disks, content).err();
    Ok(if refused.is_none() { 0 } else { -1 })
}
