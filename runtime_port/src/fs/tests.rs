//! One set of behaviours, for every kind of directory.

use super::*;

fn behaves(root: &DirRef) {
    let file = root.insert("a.bin", NodeKind::File).unwrap().file().unwrap();
    file.write_at(b"xyz", 5).unwrap();
    assert_eq!(file.len().unwrap(), 8);
    assert_eq!(read_all(&file, 100).unwrap(), b"\0\0\0\0\0xyz");
    assert_eq!(read_all(&file, 7).unwrap_err(), FsError::TooLarge { size: 8, limit: 7 });
    let mut buffer = [0; 4];
    assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 2);
    assert_eq!(file.read_at(&mut buffer, u64::MAX / 4).unwrap(), 0);
    assert!(matches!(root.insert("a.bin", NodeKind::File), Err(FsError::Exists(_))));
    assert!(matches!(root.get("b"), Err(FsError::NotFound(_))));
    for name in ["", ".", "..", "a/b", "a\0"] {
        assert!(matches!(root.insert(name, NodeKind::File), Err(FsError::InvalidName(_))), "{name:?}");
    }

    let sub = root.insert("sub", NodeKind::Directory).unwrap().dir().unwrap();
    write_all(&sub, "deep", b"1").unwrap();
    write_all(&sub, "deep", b"22").unwrap();
    let deep = lookup(root, Path::new("/sub/./x/../deep")).unwrap().file().unwrap();
    assert_eq!(read_all(&deep, 9).unwrap(), b"22");
    assert!(matches!(lookup(root, Path::new("a.bin/deep")), Err(FsError::WrongKind { expected: "directory", .. })));
    assert!(matches!(lookup(root, Path::new("../x")), Err(FsError::InvalidName(_))));
    assert_eq!(root.list().unwrap(), ["a.bin", "sub"]);
    assert!(matches!(root.remove("sub"), Err(FsError::NotEmpty(_))));
    sub.remove("deep").unwrap();
    root.remove("sub").unwrap();
    root.remove("a.bin").unwrap();
    assert!(root.list().unwrap().is_empty());
}

#[test]
#[cfg(feature = "hosted")]
fn directories_in_memory_behave() {
    behaves(&(MemoryDirectory::new("root") as DirRef));
}

#[test]
#[cfg(feature = "hosted")]
fn directories_of_the_system_behave() {
    let path = std::env::temp_dir().join(std::format!("runtime_port-fs-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    behaves(&crate::hosted::fs::directory(&path));
    std::fs::remove_dir(&path).unwrap();
}
