//! Range aggregations as a whole, from lines to series.

mod naive;
mod properties;
