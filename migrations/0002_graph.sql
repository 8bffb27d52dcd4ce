-- Who may see whose posts: private accounts and requests to follow them, blocks, mutes, suspension; edits of posts.
-- Every column has a default that means what was so before: the release before this one goes on beside it.

alter table accounts add column is_private boolean not null default false;
alter table accounts add column suspended_at timestamptz;
alter table posts add column edited_at timestamptz;

-- A request to follow a private account is two rows, like a follow: one at the requester's shard, one at the account's.
-- A request that is accepted becomes a follow: nobody has both. `id` is the request's own: it orders lists.
create table requesting (
  shard smallint not null,
  requester_id bigint not null,
  followee_id bigint not null,
  id bigint not null,
  notify boolean not null,
  primary key (shard, requester_id, followee_id),
  check (shard = ((requester_id >> 10) & 8191))
) partition by hash (shard);
create table requesting_0 partition of requesting for values with (modulus 8, remainder 0);
create table requesting_1 partition of requesting for values with (modulus 8, remainder 1);
create table requesting_2 partition of requesting for values with (modulus 8, remainder 2);
create table requesting_3 partition of requesting for values with (modulus 8, remainder 3);
create table requesting_4 partition of requesting for values with (modulus 8, remainder 4);
create table requesting_5 partition of requesting for values with (modulus 8, remainder 5);
create table requesting_6 partition of requesting for values with (modulus 8, remainder 6);
create table requesting_7 partition of requesting for values with (modulus 8, remainder 7);

create table requesters (
  shard smallint not null,
  followee_id bigint not null,
  requester_id bigint not null,
  id bigint not null,
  notify boolean not null,
  primary key (shard, followee_id, requester_id),
  check (shard = ((followee_id >> 10) & 8191))
) partition by hash (shard);
create table requesters_0 partition of requesters for values with (modulus 8, remainder 0);
create table requesters_1 partition of requesters for values with (modulus 8, remainder 1);
create table requesters_2 partition of requesters for values with (modulus 8, remainder 2);
create table requesters_3 partition of requesters for values with (modulus 8, remainder 3);
create table requesters_4 partition of requesters for values with (modulus 8, remainder 4);
create table requesters_5 partition of requesters for values with (modulus 8, remainder 5);
create table requesters_6 partition of requesters for values with (modulus 8, remainder 6);
create table requesters_7 partition of requesters for values with (modulus 8, remainder 7);
create index requesters_id on requesters (shard, followee_id, id);

-- A block is a row at the blocker's shard and one at the blocked account's, written in one transaction.
create table blocks (
  shard smallint not null,
  blocker_id bigint not null,
  blocked_id bigint not null,
  id bigint not null,
  primary key (shard, blocker_id, blocked_id),
  check (shard = ((blocker_id >> 10) & 8191))
) partition by hash (shard);
create table blocks_0 partition of blocks for values with (modulus 8, remainder 0);
create table blocks_1 partition of blocks for values with (modulus 8, remainder 1);
create table blocks_2 partition of blocks for values with (modulus 8, remainder 2);
create table blocks_3 partition of blocks for values with (modulus 8, remainder 3);
create table blocks_4 partition of blocks for values with (modulus 8, remainder 4);
create table blocks_5 partition of blocks for values with (modulus 8, remainder 5);
create table blocks_6 partition of blocks for values with (modulus 8, remainder 6);
create table blocks_7 partition of blocks for values with (modulus 8, remainder 7);
create index blocks_id on blocks (shard, blocker_id, id);

create table blocked_by (
  shard smallint not null,
  blocked_id bigint not null,
  blocker_id bigint not null,
  primary key (shard, blocked_id, blocker_id),
  check (shard = ((blocked_id >> 10) & 8191))
) partition by hash (shard);
create table blocked_by_0 partition of blocked_by for values with (modulus 8, remainder 0);
create table blocked_by_1 partition of blocked_by for values with (modulus 8, remainder 1);
create table blocked_by_2 partition of blocked_by for values with (modulus 8, remainder 2);
create table blocked_by_3 partition of blocked_by for values with (modulus 8, remainder 3);
create table blocked_by_4 partition of blocked_by for values with (modulus 8, remainder 4);
create table blocked_by_5 partition of blocked_by for values with (modulus 8, remainder 5);
create table blocked_by_6 partition of blocked_by for values with (modulus 8, remainder 6);
create table blocked_by_7 partition of blocked_by for values with (modulus 8, remainder 7);

-- A mute is the muter's alone: no row of it is where the muted account's are.
create table mutes (
  shard smallint not null,
  muter_id bigint not null,
  muted_id bigint not null,
  id bigint not null,
  primary key (shard, muter_id, muted_id),
  check (shard = ((muter_id >> 10) & 8191))
) partition by hash (shard);
create table mutes_0 partition of mutes for values with (modulus 8, remainder 0);
create table mutes_1 partition of mutes for values with (modulus 8, remainder 1);
create table mutes_2 partition of mutes for values with (modulus 8, remainder 2);
create table mutes_3 partition of mutes for values with (modulus 8, remainder 3);
create table mutes_4 partition of mutes for values with (modulus 8, remainder 4);
create table mutes_5 partition of mutes for values with (modulus 8, remainder 5);
create table mutes_6 partition of mutes for values with (modulus 8, remainder 6);
create table mutes_7 partition of mutes for values with (modulus 8, remainder 7);
create index mutes_id on mutes (shard, muter_id, id);
