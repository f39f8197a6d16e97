//! What is remembered on disk, over real sockets. Each connector stands for a process of its own, as all
//! that connectors share is the directory.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod fake;

#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_client::{Connector, Hello, Origin, PayloadProtocol};

use fake::bytes::{Response, number, text};
use fake::session::HALVES;
use fake::{FakeServer, Place, Request, hello};

const CONTROL: u64 = 0;
const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);

/// A broker that names the backend at `endpoint`, to be kept for `keepalive_secs`.
fn broker_naming(endpoint: PathBuf, keepalive_secs: u64) -> FakeServer {
    FakeServer::replying(move |request| {
        let fields = [
            number(1, 1),
            text(2, "1.2.4"),
            text(3, endpoint.to_str().unwrap()),
            text(4, "careful"),
            number(6, keepalive_secs),
            number(8, 77),
        ];
        Response::new(CONTROL, request.id(), text(1, fields.concat())).bytes()
    })
}

fn echo(request: &Request) -> Vec<u8> {
    Response::new(request.frame.number(3), request.id(), request.frame.text(4).to_vec()).bytes()
}

/// A broker, a backend that it names, and a place for the cache.
struct Scene {
    broker: FakeServer,
    backend: FakeServer,
    place: Place,
}

impl Scene {
    fn with(backend: FakeServer) -> Self {
        let broker = broker_naming(backend.endpoint(), 1_800);
        Self { broker, backend, place: Place::new() }
    }

    fn echoing() -> Self {
        Self::with(FakeServer::conversing(echo))
    }

    fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    /// What a new process has.
    fn connector(&self) -> Connector {
        self.asking(&hello())
    }

    fn asking(&self, hello: &Hello) -> Connector {
        let connector = Connector::new(hello.clone()).with_disk_cache_in(self.cache());
        connector.broker(self.broker.endpoint()).timeout(Duration::MAX)
    }

    /// Every file of the cache.
    fn files(&self) -> Vec<PathBuf> {
        files(&self.cache())
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn another_process_does_without_a_hello_too() {
    for half in HALVES {
        let scene = Scene::echoing();
        let first = half.connect(&scene.connector()).unwrap();
        assert_eq!(first.origin(), Origin::Broker);
        let connector = scene.connector();
        let mut second = half.connect(&connector).unwrap();
        assert_eq!((second.origin(), second.agreement()), (Origin::Disk, first.agreement()));
        assert_eq!(second.request(LANE, "still there?").unwrap(), "still there?");
        assert_eq!(half.connect(&connector).unwrap().origin(), Origin::Memory);
        assert_eq!(scene.broker.requests().len(), 1);
    }
}

#[cfg(unix)] // Modes.
#[test]
fn nobody_but_the_user_sees_what_is_remembered() {
    for half in HALVES {
        let scene = Scene::echoing();
        half.connect(&scene.connector()).unwrap();
        let files = scene.files();
        assert_eq!((files.len(), mode(&files[0]), mode(&scene.cache())), (1, 0o600, 0o700));
    }
}

#[cfg(unix)] // Modes.
#[test]
fn a_place_or_a_file_that_others_may_write_to_is_done_without() {
    for half in HALVES {
        let scene = Scene::echoing();
        half.connect(&scene.connector()).unwrap();
        let open =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let file = &scene.files()[0];
        open(&scene.cache(), 0o770);
        assert_eq!(half.connect(&scene.connector()).unwrap().origin(), Origin::Broker);
        open(&scene.cache(), 0o700);
        open(file, 0o620);
        assert_eq!(half.connect(&scene.connector()).unwrap().origin(), Origin::Broker);
        assert_eq!(mode(file), 0o600, "and it has been replaced");
        assert_eq!(half.connect(&scene.connector()).unwrap().origin(), Origin::Disk);
    }
}

#[test]
fn who_does_not_ask_for_the_disk_leaves_nothing_there_and_finds_nothing() {
    for half in HALVES {
        let scene = Scene::echoing();
        let plain = || Connector::new(hello()).broker(scene.broker.endpoint());
        half.connect(&plain()).unwrap();
        assert!(!scene.cache().exists());
        half.connect(&scene.connector()).unwrap();
        assert_eq!(half.connect(&plain()).unwrap().origin(), Origin::Broker);
    }
}

#[test]
fn a_backend_that_is_gone_is_forgotten_on_disk_even_where_the_broker_cannot_be_asked() {
    for half in HALVES {
        let Scene { broker, backend, place } = Scene::echoing();
        let (endpoint, cache) = (broker.endpoint(), place.path().join("cache"));
        let connector = || Connector::new(hello()).broker(&endpoint).with_disk_cache_in(&cache);
        half.connect(&connector()).unwrap();
        drop((broker, backend));
        half.connect(&connector().broker(place.endpoint("nobody.sock"))).unwrap_err();
        assert_eq!(files(&cache).len(), 1, "another broker's answer is not tried");
        half.connect(&connector()).unwrap_err();
        assert_eq!(files(&cache), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_request_without_an_answer_makes_every_process_ask_the_broker() {
    for half in HALVES {
        let scene = Scene::with(FakeServer::replying(|_| vec![]));
        half.connect(&scene.connector()).unwrap();
        let mut session = half.connect(&scene.connector()).unwrap();
        assert_eq!(session.origin(), Origin::Disk);
        session.request(LANE, "payload").unwrap_err();
        assert_eq!(scene.files(), Vec::<PathBuf>::new());
        assert_eq!(half.connect(&scene.connector()).unwrap().origin(), Origin::Broker);
    }
}

#[test]
fn each_service_version_and_broker_has_an_answer_of_its_own() {
    for half in HALVES {
        let scene = Scene::echoing();
        half.connect(&scene.connector()).unwrap();
        let hello =
            |service: &str, version: &str| Hello::new(service.parse().unwrap(), version.parse().unwrap());
        let other_broker = broker_naming(scene.backend.endpoint(), 1_800);
        let connectors = || {
            [
                scene.asking(&hello("other", "1.2.3")),
                scene.asking(&hello("cache", "1.2.4")),
                scene.connector().broker(other_broker.endpoint()),
            ]
        };
        for origin in [Origin::Broker, Origin::Disk] {
            for connector in connectors() {
                assert_eq!(half.connect(&connector).unwrap().origin(), origin);
            }
        }
        assert_eq!(half.connect(&scene.connector()).unwrap().origin(), Origin::Disk);
    }
}

#[test]
fn without_keepalive_nothing_is_left() {
    for half in HALVES {
        let backend = FakeServer::conversing(echo);
        let broker = broker_naming(backend.endpoint(), 0);
        let place = Place::new();
        let connector = || Connector::new(hello()).broker(broker.endpoint()).with_disk_cache_in(place.path());
        for _ in 0..2 {
            assert_eq!(half.connect(&connector()).unwrap().origin(), Origin::Broker);
        }
        assert_eq!(files(place.path()), Vec::<PathBuf>::new());
    }
}
