//! The generated messages of `proto/`.

/// The push, as prost decodes it: the oracle of the tests.
#[cfg(test)]
#[expect(unreachable_pub, reason = "generated")]
pub(crate) mod push {
    include!(concat!(env!("OUT_DIR"), "/tailwater.v1.rs"));
}

/// OpenTelemetry's messages, nested as their packages are because they name each other.
#[expect(unreachable_pub, clippy::enum_variant_names, reason = "generated")]
pub(crate) mod opentelemetry {
    pub(crate) mod proto {
        #[cfg(test)]
        pub(crate) mod collector {
            pub(crate) mod logs {
                pub(crate) mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.collector.logs.v1.rs"));
                }
            }
        }
        pub(crate) mod common {
            pub(crate) mod v1 {
                include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.common.v1.rs"));
            }
        }
        pub(crate) mod resource {
            pub(crate) mod v1 {
                include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.resource.v1.rs"));
            }
        }
        pub(crate) mod logs {
            pub(crate) mod v1 {
                include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.logs.v1.rs"));
            }
        }
    }
}
