use super::*;

#[test]
fn registered_text_is_found_until_its_registration_goes() {
    static INDEX: TextIndex = TextIndex::new();
    assert!(INDEX.is_empty());
    let low = INDEX.register(0x1000..0x1800, None).unwrap();
    let high = INDEX.register(0x3000..0x3800, None).unwrap();
    assert!(matches!(INDEX.register(0x1700..0x1900, None), Err(RangeIndexError::Overlap { .. })));
    assert_eq!(INDEX.len(), 2);
    {
        let reader = INDEX.read();
        let text = reader.find(0x17ff).unwrap();
        assert!(text.contains(0x1000) && !text.contains(0x1800) && text.code().is_none());
        assert_eq!(text.start(), 0x1000);
        assert!(reader.find(0x1800).is_none());
        assert_eq!(reader.near(0x1800).map(|t| t.map(|t| t.start())), [Some(0x1000), Some(0x3000)]);
    }
    drop(low);
    assert!(INDEX.read().find(0x1000).is_none());
    drop(high);
    assert!(INDEX.is_empty());
}
