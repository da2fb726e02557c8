//! Clock, randomness, heap, processor, console: the hosted port's answers.

use crate::{cpu::CpuFeatures, heap, platform::platform, random, time};
use core::time::Duration;

#[test]
fn the_clock_goes_forward_and_sleeping_takes_time() {
    let start = time::Instant::now();
    time::sleep(Duration::from_millis(3));
    assert!(start.elapsed() >= Duration::from_millis(3));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(platform().clock().wall_ns().unwrap() > 1_700_000_000_000_000_000);
}

#[test]
fn random_bytes_differ() {
    let (mut a, mut b) = ([0u8; 1000], [0u8; 1000]);
    random::fill_bytes(&mut a).unwrap();
    random::fill_bytes(&mut b).unwrap();
    assert_ne!(a, b);
    assert!(a[900..].iter().any(|x| *x != 0));
    assert_ne!(random::next_u64().unwrap(), random::next_u64().unwrap());
}

#[test]
fn allocation_that_cannot_succeed_is_an_error() {
    assert!(heap::try_vec(0u8, isize::MAX as usize).is_err());
    assert!(heap::try_with_capacity::<u64>(usize::MAX / 2).is_err());
    assert_eq!(heap::try_to_vec(b"abc").unwrap(), b"abc");
    let statistics = heap::statistics().unwrap();
    assert!(statistics.used > 0 && statistics.used <= statistics.size);
}

#[test]
fn processor_features_agree_with_std() {
    let features = CpuFeatures::detect();
    assert_eq!(features.sse3, std::is_x86_feature_detected!("sse3"));
    assert_eq!(features.ssse3, std::is_x86_feature_detected!("ssse3"));
    assert_eq!(features.sse41, std::is_x86_feature_detected!("sse4.1"));
    assert_eq!(features.sse42, std::is_x86_feature_detected!("sse4.2"));
    assert_eq!(features.popcnt, std::is_x86_feature_detected!("popcnt"));
    assert_eq!(features.avx, std::is_x86_feature_detected!("avx"));
    assert_eq!(features.avx2, std::is_x86_feature_detected!("avx2"));
    assert_eq!(features.bmi1, std::is_x86_feature_detected!("bmi1"));
    assert_eq!(features.bmi2, std::is_x86_feature_detected!("bmi2"));
    assert_eq!(features.lzcnt, std::is_x86_feature_detected!("lzcnt"));
    assert_eq!(features.fma, std::is_x86_feature_detected!("fma"));
    assert_eq!(features.cmpxchg16b, std::is_x86_feature_detected!("cmpxchg16b"));
    assert_eq!(features.avx512f, std::is_x86_feature_detected!("avx512f"));
    assert_eq!(features.avx512vl, std::is_x86_feature_detected!("avx512vl"));
    assert_eq!(features.avx512dq, std::is_x86_feature_detected!("avx512dq"));
    assert_eq!(features.avx512bitalg, std::is_x86_feature_detected!("avx512bitalg"));
    assert_eq!(features.avx512vbmi, std::is_x86_feature_detected!("avx512vbmi"));
}

#[test]
fn console_and_log_write_to_the_streams() {
    if std::env::var("PORT_TEST_ROLE").is_ok_and(|r| r == "console") {
        crate::println!("out {}", "x".repeat(2000));
        crate::eprintln!("report {}", 1);
        assert!(crate::console::init_log(log::LevelFilter::Info));
        log::info!("an info record");
        log::debug!("a debug record");
        return;
    }
    let name = "hosted::noun_tests::console_and_log_write_to_the_streams";
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args([name, "--exact", "--nocapture"]).env("PORT_TEST_ROLE", "console").output().unwrap();
    let (out, err) =
        (std::string::String::from_utf8_lossy(&output.stdout), std::string::String::from_utf8_lossy(&output.stderr));
    assert!(out.contains(&std::format!("out {}\n", "x".repeat(2000))));
    assert!(
        err.contains("report 1\n") && err.contains("[INFO runtime_port::hosted::noun_tests] an info record\n"),
        "{err}"
    );
    assert!(!err.contains("debug record"));
}
