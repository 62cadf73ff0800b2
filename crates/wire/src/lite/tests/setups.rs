//! SETUP exchange of moq-lite-01 and 02.

use super::{
    legacy::{ClientSetup, SETUP_BYTES, ServerSetup, SessionInfo, Value, code},
    *,
};

/// CLIENT_SETUP of moq-rs, captured.
const CAPTURED: &[u8] =
    b"\x20\x00\x3a\x03\xc0\0\0\0\xff\x0d\xad\x02\xc0\0\0\0\xff\x0d\xad\x01\xc0\0\0\0\xff\0\0\x0e\
    \x04\x02\xc0\0\0\0\xff\xff\xff\xff\x80\x04\x0b\x5c\x01\x80\x04\x0b\x5a\x01\x07\x0bmoq-lite-rs";

fn read(bytes: &[u8]) -> Result<Option<ClientSetup>, DecodeError> {
    let mut inbox = MessageBuf::new();
    inbox.push(bytes);
    let setup = ClientSetup::next(&mut inbox)?;
    assert!(setup.is_none() || inbox.is_empty());
    Ok(setup)
}

fn offering(versions: &[u64]) -> ClientSetup {
    ClientSetup { versions: versions.to_vec(), parameters: Vec::new() }
}

#[test]
fn what_a_client_says_first_is_read_and_said_alike() {
    let setup = read(&CAPTURED[1..]).unwrap().unwrap();
    assert_eq!(setup.versions, [0xff0d_ad02, 0xff0d_ad01, 0xff00_000e]);
    assert_eq!(setup.parameters.len(), 4);
    assert_eq!(setup.parameters[0], (2, Value::Number(0xffff_ffff)));
    assert_eq!(setup.parameters[3], (7, Value::Bytes(b"moq-lite-rs".to_vec())));
    let mut out = Vec::new();
    setup.encode(&mut out);
    assert_eq!(out, CAPTURED);
    for cut in 1..CAPTURED.len() {
        assert_eq!(read(&CAPTURED[1..cut]), Ok(None), "cut at {cut}");
    }
}

#[test]
fn the_client_says_which_version_it_would_rather_have() {
    let (v01, v02) = (code(V01).unwrap(), code(V02).unwrap());
    assert_eq!(offering(&[v02, v01]).choose(), Some(V02));
    assert_eq!(offering(&[v01, v02]).choose(), Some(V01));
    assert_eq!(offering(&[0xff00_000e, v01]).choose(), Some(V01));
    // Later versions are not negotiated by SETUP.
    assert_eq!(offering(&[0xff0d_ad03, 0xff00_000e]).choose(), None);
    assert_eq!(offering(&[]).choose(), None);
    assert!(Version::ALL.iter().all(|version| code(*version).is_none()));
}

#[test]
fn the_answer_has_its_known_bytes() {
    for version in [V01, V02] {
        let mut out = Vec::new();
        ServerSetup { version }.encode(&mut out);
        let last = if version == V01 { 1 } else { 2 };
        assert_eq!(out, [0x21, 0, 9, 0xc0, 0, 0, 0, 0xff, 0x0d, 0xad, last, 0]);
        for cut in 0..out.len() {
            let mut inbox = MessageBuf::new();
            inbox.push(&out[..cut]);
            assert_eq!(ServerSetup::next(&mut inbox), Ok(None));
            inbox.push(&out[cut..]);
            assert_eq!(ServerSetup::next(&mut inbox), Ok(Some(ServerSetup { version })));
            assert!(inbox.is_empty());
        }
    }
    let mut inbox = MessageBuf::new();
    inbox.push(&[0x21, 0, 9, 0xc0, 0, 0, 0, 0xff, 0, 0, 0x0e, 0]);
    assert_eq!(ServerSetup::next(&mut inbox), Err(DecodeError::Value("setup version")));
    let mut inbox = MessageBuf::new();
    inbox.push(&[0x20]);
    assert_eq!(ServerSetup::next(&mut inbox), Err(DecodeError::UnknownResponse));
}

#[test]
fn a_setup_over_its_limits_is_refused() {
    let most = u16::try_from(SETUP_BYTES).unwrap();
    assert_eq!(read(&most.to_be_bytes()), Ok(None));
    assert_eq!(read(&(most + 1).to_be_bytes()), Err(DecodeError::SetupTooLarge), "by its length alone");

    let many = |count: usize| {
        let mut out = Vec::new();
        offering(&vec![1; count]).encode(&mut out);
        out.remove(0);
        read(&out)
    };
    assert!(many(64).is_ok());
    assert_eq!(many(65), Err(DecodeError::TooManyParameters));

    let many = |count: usize| {
        let mut out = Vec::new();
        let parameters = vec![(2, Value::Number(1)); count];
        ClientSetup { versions: vec![1], parameters }.encode(&mut out);
        out.remove(0);
        read(&out)
    };
    assert!(many(limits::PARAMETERS).is_ok());
    assert_eq!(many(limits::PARAMETERS + 1), Err(DecodeError::TooManyParameters));

    // One byte too many, and one too few.
    assert_eq!(read(&[0, 3, 0, 0, 0]), Err(DecodeError::Leftover));
    assert_eq!(read(&[0, 1, 0]), Err(DecodeError::Short));
}

#[test]
fn the_first_list_of_broadcasts_comes_back() {
    let init = AnnounceInit { suffixes: vec![path("a"), path("b/c"), path("")] };
    for version in [V01, V02] {
        comes_back(version, &init);
        assert_eq!(encoded(version, &init), [8, 3, 1, b'a', 3, b'b', b'/', b'c', 0]);
        comes_back(version, &AnnounceInit::default());
        comes_back(version, &SessionInfo { bitrate: 70_000 });
    }
    let most = AnnounceInit { suffixes: (0..AnnounceInit::MOST).map(|n| path(&n.to_string())).collect() };
    comes_back(V02, &most);
    let mut more = most;
    more.suffixes.push(path("more"));
    assert_eq!(AnnounceInit::decode(V02, &body(V02, &more)), Err(DecodeError::TooManyAnnounces));
    assert_eq!(AnnounceInit::decode(V02, &[2, 0, 0]), Err(DecodeError::Value("announce list")));
}
