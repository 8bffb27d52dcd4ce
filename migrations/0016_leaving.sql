-- Leaving: since when an account is being deleted. It is suspended too, which hides it; nobody brings it back.
alter table accounts add column left_at timestamptz;

-- Rows at other accounts' shards that name an account are found by these.
create index mutes_muted on mutes (muted_id);
create index activity_actor on activity (actor_id);
create index emails_account on emails (account_id);
