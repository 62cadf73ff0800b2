use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use super::*;

const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
const ANY_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Receives until something arrives; loopback delivers at once, so this does not depend on time.
fn receive(socket: &mut WorkerSocket) -> Vec<UdpReceived> {
    let mut out = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    while out.is_empty() && Instant::now() < deadline {
        match socket.recv(&mut out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            result => assert!(!result.unwrap(), "a batch that is not full is the last"),
        }
    }
    out
}

fn short_header(id: u8) -> Vec<u8> {
    let mut packet = vec![id; 30];
    packet[0] = 0x40;
    packet
}

fn long_header(id: u8) -> Vec<u8> {
    let mut packet = vec![0; 30];
    packet[0] = 0xc0;
    packet[5] = 8;
    packet[6] = id;
    packet
}

fn steers(bind_to: SocketAddr, reach: IpAddr) {
    const WORKERS: usize = 3;
    let mut group = bind(bind_to, WORKERS, Steering::ConnectionId).unwrap();
    let target = SocketAddr::new(reach, group.addr.port());
    let any: IpAddr =
        if reach.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    for id in [0, 1, 2, 7, 128, 254, 255] {
        for packet in [short_header(id), long_header(id)] {
            // A new port each time: an address hash would spread these over all sockets.
            let peer = UdpSocket::bind((any, 0)).unwrap();
            peer.send_to(&packet, target).unwrap();
            let owner = usize::from(id) % WORKERS;
            let got = receive(&mut group.sockets[owner]);
            assert_eq!(got.len(), 1, "id {id} did not reach worker {owner}");
            assert_eq!(got[0].data, packet);
            assert_eq!(got[0].local_ip, Some(reach));
            assert_eq!(canonical(got[0].remote).port(), peer.local_addr().unwrap().port());
        }
    }
    for socket in &mut group.sockets {
        let mut rest = Vec::new();
        assert_eq!(socket.recv(&mut rest).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn connection_id_selects_the_socket_on_v4() {
    steers(V4, Ipv4Addr::LOCALHOST.into());
}

#[test]
fn connection_id_selects_the_socket_on_v6() {
    steers(V6, Ipv6Addr::LOCALHOST.into());
}

#[test]
fn connection_id_selects_the_socket_for_v4_on_dual_stack() {
    steers(ANY_V6, Ipv4Addr::LOCALHOST.into());
}

#[test]
fn taken_port_is_refused() {
    let group = bind(V4, 2, Steering::ConnectionId).unwrap();
    // Another relay, which the kernel alone would let join the group.
    let error = bind(group.addr, 2, Steering::ConnectionId).unwrap_err();
    assert!(matches!(error, BindError::InUse(addr) if addr == group.addr), "{error}");
    assert!(error.to_string().contains("already in use"), "{error}");
    // Another program.
    let other = UdpSocket::bind(V4).unwrap();
    let error = bind(other.local_addr().unwrap(), 1, Steering::Off).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    // The port is free again once the group is dropped.
    let addr = group.addr;
    drop(group);
    bind(addr, 2, Steering::ConnectionId).unwrap();
}

#[test]
fn the_number_of_workers_is_bounded() {
    assert!(matches!(bind(V4, 0, Steering::Off), Err(BindError::Workers(0))));
    let most = relay_model::limits::WORKERS;
    assert!(matches!(bind(V4, most + 1, Steering::Off), Err(BindError::Workers(_))));
    assert_eq!(bind(V4, most, Steering::ConnectionId).unwrap().sockets.len(), most);
}

fn packet(destination: SocketAddr, bytes: Vec<u8>) -> UdpPacket {
    UdpPacket { destination, src_ip: None, ecn: None, segment: None, bytes }
}

fn lengths(peer: &UdpSocket, count: usize) -> Vec<usize> {
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 2_048];
    (0..count).map(|_| peer.recv(&mut buffer).unwrap()).collect()
}

#[test]
fn one_call_sends_trains_and_singles_to_many_peers() {
    for (bind_to, reach) in [
        (V4, IpAddr::from(Ipv4Addr::LOCALHOST)),
        (V6, Ipv6Addr::LOCALHOST.into()),
        (ANY_V6, Ipv4Addr::LOCALHOST.into()),
        (ANY_V6, Ipv6Addr::LOCALHOST.into()),
    ] {
        let mut group = bind(bind_to, 1, Steering::ConnectionId).unwrap();
        let socket = &mut group.sockets[0];
        let peers: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind((reach, 0)).unwrap()).collect();
        let to = |peer: usize| peers[peer].local_addr().unwrap();
        let batch = [
            packet(to(0), vec![0; 100]),
            UdpPacket {
                src_ip: Some(reach),
                ecn: Some(Ecn::Ect0),
                segment: Some(1_200),
                ..packet(to(1), vec![1; 3_000])
            },
            UdpPacket { segment: Some(500), ..packet(to(2), vec![2; 500]) },
        ];
        assert_eq!(batch.each_ref().map(UdpPacket::datagrams), [1, 3, 1]);
        assert_eq!(socket.send(&batch).unwrap(), 3);
        assert_eq!(lengths(&peers[0], 1), [100]);
        assert_eq!(lengths(&peers[1], 3), [1_200, 1_200, 600]);
        assert_eq!(lengths(&peers[2], 1), [500]);
    }
}

#[test]
fn marks_and_trains_arrive_as_they_were_sent() {
    for (addr, reach) in [(V4, IpAddr::from(Ipv4Addr::LOCALHOST)), (V6, Ipv6Addr::LOCALHOST.into())] {
        let mut sender = bind(addr, 1, Steering::Off).unwrap();
        let mut receiver = bind(addr, 1, Steering::Off).unwrap();
        let train = UdpPacket {
            src_ip: Some(reach),
            ecn: Some(Ecn::Ce),
            segment: Some(1_000),
            ..packet(receiver.addr, (0..2_500u32).map(|n| n as u8).collect())
        };
        assert_eq!(sender.sockets[0].send(std::slice::from_ref(&train)).unwrap(), 1);
        let mut bytes = Vec::new();
        while bytes.len() < 2_500 {
            for got in receive(&mut receiver.sockets[0]) {
                assert_eq!(got.ecn, Some(Ecn::Ce));
                assert_eq!(got.remote, sender.addr);
                assert!(got.stride == 1_000 || got.data.len() < 1_000);
                bytes.extend_from_slice(&got.data);
            }
        }
        assert_eq!(bytes, train.bytes);
    }
}

#[test]
fn datagram_larger_than_the_path_fails_with_emsgsize() {
    let mut group = bind(V4, 1, Steering::Off).unwrap();
    let peer = UdpSocket::bind(V4).unwrap();
    let huge = packet(peer.local_addr().unwrap(), vec![0; 65_536]);
    let error = group.sockets[0].send(&[huge]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}
