-- The first schema. Every sharded table has `shard` first in its primary key and is hash-partitioned by it, so that the
-- same statements serve plain PostgreSQL and Citus. When a row was made is in its id (src/instafeed/ids.py).

-- Uniqueness across shards has a table of its own.
create table usernames (
  username text primary key,
  account_id bigint not null
);
create table emails (
  email text primary key,
  account_id bigint not null
);

create table accounts (
  shard smallint not null,
  id bigint not null,
  username text not null,
  display_name text not null default '',
  bio text not null default '',
  password_hash text not null,
  post_count integer not null default 0,
  follower_count integer not null default 0,
  following_count integer not null default 0,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191))
) partition by hash (shard);
create table accounts_0 partition of accounts for values with (modulus 8, remainder 0);
create table accounts_1 partition of accounts for values with (modulus 8, remainder 1);
create table accounts_2 partition of accounts for values with (modulus 8, remainder 2);
create table accounts_3 partition of accounts for values with (modulus 8, remainder 3);
create table accounts_4 partition of accounts for values with (modulus 8, remainder 4);
create table accounts_5 partition of accounts for values with (modulus 8, remainder 5);
create table accounts_6 partition of accounts for values with (modulus 8, remainder 6);
create table accounts_7 partition of accounts for values with (modulus 8, remainder 7);

-- The devices that are logged in. Redis answers for most requests; this is what it is filled from.
create table sessions (
  shard smallint not null,
  id bigint not null,
  account_id bigint not null,
  token_hash bytea not null,
  device_name text not null,
  used_at timestamptz not null default now(),
  primary key (shard, id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table sessions_0 partition of sessions for values with (modulus 8, remainder 0);
create table sessions_1 partition of sessions for values with (modulus 8, remainder 1);
create table sessions_2 partition of sessions for values with (modulus 8, remainder 2);
create table sessions_3 partition of sessions for values with (modulus 8, remainder 3);
create table sessions_4 partition of sessions for values with (modulus 8, remainder 4);
create table sessions_5 partition of sessions for values with (modulus 8, remainder 5);
create table sessions_6 partition of sessions for values with (modulus 8, remainder 6);
create table sessions_7 partition of sessions for values with (modulus 8, remainder 7);
create index sessions_account on sessions (shard, account_id);

-- A follow is two rows, one at each side's shard, written in one transaction. `id` is the follow's own: it orders lists.
create table following (
  shard smallint not null,
  follower_id bigint not null,
  followee_id bigint not null,
  id bigint not null,
  notify boolean not null,
  primary key (shard, follower_id, followee_id),
  check (shard = ((follower_id >> 10) & 8191))
) partition by hash (shard);
create table following_0 partition of following for values with (modulus 8, remainder 0);
create table following_1 partition of following for values with (modulus 8, remainder 1);
create table following_2 partition of following for values with (modulus 8, remainder 2);
create table following_3 partition of following for values with (modulus 8, remainder 3);
create table following_4 partition of following for values with (modulus 8, remainder 4);
create table following_5 partition of following for values with (modulus 8, remainder 5);
create table following_6 partition of following for values with (modulus 8, remainder 6);
create table following_7 partition of following for values with (modulus 8, remainder 7);
create index following_id on following (shard, follower_id, id);

create table followers (
  shard smallint not null,
  followee_id bigint not null,
  follower_id bigint not null,
  id bigint not null,
  notify boolean not null,
  primary key (shard, followee_id, follower_id),
  check (shard = ((followee_id >> 10) & 8191))
) partition by hash (shard);
create table followers_0 partition of followers for values with (modulus 8, remainder 0);
create table followers_1 partition of followers for values with (modulus 8, remainder 1);
create table followers_2 partition of followers for values with (modulus 8, remainder 2);
create table followers_3 partition of followers for values with (modulus 8, remainder 3);
create table followers_4 partition of followers for values with (modulus 8, remainder 4);
create table followers_5 partition of followers for values with (modulus 8, remainder 5);
create table followers_6 partition of followers for values with (modulus 8, remainder 6);
create table followers_7 partition of followers for values with (modulus 8, remainder 7);
create index followers_id on followers (shard, followee_id, id);

-- A post is there for its author at once, and published when all of its media are ready.
create table posts (
  shard smallint not null,
  id bigint not null,
  author_id bigint not null,
  caption text not null,
  published_at timestamptz,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((author_id >> 10) & 8191))
) partition by hash (shard);
create table posts_0 partition of posts for values with (modulus 8, remainder 0);
create table posts_1 partition of posts for values with (modulus 8, remainder 1);
create table posts_2 partition of posts for values with (modulus 8, remainder 2);
create table posts_3 partition of posts for values with (modulus 8, remainder 3);
create table posts_4 partition of posts for values with (modulus 8, remainder 4);
create table posts_5 partition of posts for values with (modulus 8, remainder 5);
create table posts_6 partition of posts for values with (modulus 8, remainder 6);
create table posts_7 partition of posts for values with (modulus 8, remainder 7);
create index posts_author on posts (shard, author_id, id);

-- `pending` while its bytes arrive, `processing` until its renditions are made, then `ready` or `failed`.
create table media (
  shard smallint not null,
  id bigint not null,
  account_id bigint not null,
  status text not null check (status in ('pending', 'processing', 'ready', 'failed')),
  failure text,
  object_key text not null,
  content_type text,
  size bigint,
  sha256 bytea,
  width integer,
  height integer,
  blurhash text,
  renditions jsonb not null default '[]',
  post_id bigint,
  position smallint,
  alt_text text not null default '',
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table media_0 partition of media for values with (modulus 8, remainder 0);
create table media_1 partition of media for values with (modulus 8, remainder 1);
create table media_2 partition of media for values with (modulus 8, remainder 2);
create table media_3 partition of media for values with (modulus 8, remainder 3);
create table media_4 partition of media for values with (modulus 8, remainder 4);
create table media_5 partition of media for values with (modulus 8, remainder 5);
create table media_6 partition of media for values with (modulus 8, remainder 6);
create table media_7 partition of media for values with (modulus 8, remainder 7);
create index media_post on media (shard, post_id, position) where post_id is not null;
create index media_pending on media (shard, id) where status = 'pending';

-- What a committed change still has to cause. The queue's jobs only ring for it: a row is done when it says so.
create table outbox (
  shard smallint not null,
  id bigint not null,
  kind text not null,
  payload jsonb not null,
  position bigint not null default 0,
  attempts integer not null default 0,
  due_at timestamptz not null,
  leased_until timestamptz,
  error text,
  done_at timestamptz,
  dead_at timestamptz,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191))
) partition by hash (shard);
create table outbox_0 partition of outbox for values with (modulus 8, remainder 0);
create table outbox_1 partition of outbox for values with (modulus 8, remainder 1);
create table outbox_2 partition of outbox for values with (modulus 8, remainder 2);
create table outbox_3 partition of outbox for values with (modulus 8, remainder 3);
create table outbox_4 partition of outbox for values with (modulus 8, remainder 4);
create table outbox_5 partition of outbox for values with (modulus 8, remainder 5);
create table outbox_6 partition of outbox for values with (modulus 8, remainder 6);
create table outbox_7 partition of outbox for values with (modulus 8, remainder 7);
create index outbox_due on outbox (due_at) where done_at is null;
create index outbox_done on outbox (done_at) where done_at is not null;

-- What happened that an account wants to know of; `subject_id` is the post.
create table activity (
  shard smallint not null,
  account_id bigint not null,
  kind text not null,
  subject_id bigint not null,
  actor_id bigint not null,
  primary key (shard, account_id, kind, subject_id, actor_id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table activity_0 partition of activity for values with (modulus 8, remainder 0);
create table activity_1 partition of activity for values with (modulus 8, remainder 1);
create table activity_2 partition of activity for values with (modulus 8, remainder 2);
create table activity_3 partition of activity for values with (modulus 8, remainder 3);
create table activity_4 partition of activity for values with (modulus 8, remainder 4);
create table activity_5 partition of activity for values with (modulus 8, remainder 5);
create table activity_6 partition of activity for values with (modulus 8, remainder 6);
create table activity_7 partition of activity for values with (modulus 8, remainder 7);

-- First replies of creating requests. `account_id` is 0 for requests without a session.
create table idempotency_keys (
  shard smallint not null,
  account_id bigint not null,
  key text not null,
  fingerprint bytea not null,
  resource_id bigint not null,
  locked_until timestamptz not null,
  status smallint,
  headers jsonb,
  body bytea,
  created_at timestamptz not null default now(),
  primary key (shard, account_id, key)
) partition by hash (shard);
create table idempotency_keys_0 partition of idempotency_keys for values with (modulus 8, remainder 0);
create table idempotency_keys_1 partition of idempotency_keys for values with (modulus 8, remainder 1);
create table idempotency_keys_2 partition of idempotency_keys for values with (modulus 8, remainder 2);
create table idempotency_keys_3 partition of idempotency_keys for values with (modulus 8, remainder 3);
create table idempotency_keys_4 partition of idempotency_keys for values with (modulus 8, remainder 4);
create table idempotency_keys_5 partition of idempotency_keys for values with (modulus 8, remainder 5);
create table idempotency_keys_6 partition of idempotency_keys for values with (modulus 8, remainder 6);
create table idempotency_keys_7 partition of idempotency_keys for values with (modulus 8, remainder 7);
create index idempotency_keys_age on idempotency_keys (created_at);
