//! The storage suite: a list of cases and a list of stores, each case on each store.

mod accounts;
mod catalog;
mod credentials;
mod denies;
mod durability;
mod lifetimes;
mod network;
mod on_postgres;
mod samples;
mod schema;
pub(crate) mod server;
mod upgrade;

/// Declares one test for each case and store. A store's constructor returns the store and
/// whatever must live as long.
macro_rules! on_every_store {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $case() {
                    let (_folder, store) = super::samples::sqlite().await;
                    super::$module::$case(store.clone()).await;
                    store.close().await;
                }
            )+
        }

        mod postgres {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some(database) = super::server::Database::new().await else { return };
                    let store = database.store().await;
                    super::$module::$case(store.clone()).await;
                    store.close().await;
                    database.drop().await;
                }
            )+
        }
    };
}

on_every_store! {
    accounts::users_are_found_by_name_and_id,
    accounts::a_taken_user_name_is_a_conflict,
    accounts::groups_hold_members_and_grants,
    accounts::membership_needs_both_sides,
    accounts::grants_reach_a_user_once,
    accounts::keys_are_found_by_prefix_and_listed,
    accounts::revoking_a_key_keeps_the_first_date,
    accounts::touching_keys_never_goes_back,
    accounts::a_user_goes_with_all_that_is_theirs,
    accounts::settings_are_set_once_and_overwritten,
    accounts::a_setting_is_swapped_only_for_what_was_read,
    catalog::mcps_come_back_as_they_went_in,
    catalog::what_an_mcp_leaves_to_the_configuration_follows_it,
    catalog::what_an_mcp_speaks_is_kept,
    catalog::the_lifecycle_is_kept,
    catalog::of_two_who_archive_one_does,
    catalog::an_archived_mcp_gives_its_name_back,
    catalog::tools_are_replaced_as_a_set,
    catalog::a_double_tool_keeps_the_old_set,
    catalog::subscribing_twice_keeps_the_names,
    catalog::a_taken_exposed_name_is_a_conflict,
    catalog::newcomers_are_exposed_and_nobody_renamed,
    catalog::unsubscribing_forgets_the_names,
    catalog::names_of_tools_that_are_gone_are_kept_up_to_a_bound,
    catalog::prompts_keep_the_names_they_got_first,
    catalog::what_servers_can_do_is_the_last_that_was_said,
    lifetimes::sessions_live_until_they_expire,
    lifetimes::sessions_are_extended_in_a_batch,
    lifetimes::many_are_saved_in_few_statements,
    lifetimes::sessions_end_by_key_and_by_user,
    denies::saving_replaces_and_one_is_active_per_target,
    denies::a_suspension_ends_the_sessions_there_were,
    denies::the_newest_history_is_kept,
    credentials::a_value_is_set_counted_and_forgotten,
    credentials::archiving_an_mcp_forgets_what_was_set_for_it,
    credentials::a_seal_is_replaced_only_if_the_value_is_the_same,
    durability::deleting_takes_what_depends_along,
    durability::many_writers_at_once_lose_nothing,
    durability::a_closed_store_says_so,
    durability::ping_answers,
    durability::lists_are_in_the_order_of_bytes,
    durability::a_transaction_that_failed_keeps_nothing_and_leaves_nothing_open,
    durability::what_was_done_is_counted,
}
