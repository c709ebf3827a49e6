//! An actor for tests, that ends as it is told: `panic`, `err`, or any other word.

use ractor::{Actor, ActorProcessingErr, ActorRef};

/// It.
pub(super) struct Fragile;

impl Actor for Fragile {
    type Msg = &'static str;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<&'static str>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        me: ActorRef<&'static str>,
        message: &'static str,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            "panic" => panic!("as told"),
            "err" => Err("as told".into()),
            _ => {
                me.stop(None);
                Ok(())
            }
        }
    }
}
