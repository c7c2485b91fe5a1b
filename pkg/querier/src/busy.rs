//! Work that may keep a processor busy for long, on the runtime's threads: reading and compiling a query with a hundred regular
//! expressions takes seconds.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Does `work` here, and has the runtime give this thread's other tasks to another one meanwhile, where it can.
pub fn busy<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_works_with_any_runtime_and_without_one() {
        assert_eq!(busy(|| 1), 1);
        let mut single = tokio::runtime::Builder::new_current_thread();
        assert_eq!(single.build().unwrap().block_on(async { busy(|| 2) }), 2);
    }

    #[test]
    fn the_only_thread_goes_on_with_others() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (tell, told) = mpsc::channel();
        let done = runtime.spawn(async move {
            // Runs only if this thread's tasks go to another one while it waits.
            tokio::spawn(async move { tell.send(3).unwrap() });
            busy(move || told.recv().unwrap())
        });
        assert_eq!(runtime.block_on(done).unwrap(), 3);
    }
}
