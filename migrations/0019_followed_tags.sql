-- Whose home feed takes posts with which tags: rows at the account's shard only. `id` orders the list.
create table followed_tags (
  shard smallint not null,
  account_id bigint not null,
  tag text collate "C" not null,
  id bigint not null,
  primary key (shard, account_id, tag),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table followed_tags_0 partition of followed_tags for values with (modulus 8, remainder 0);
create table followed_tags_1 partition of followed_tags for values with (modulus 8, remainder 1);
create table followed_tags_2 partition of followed_tags for values with (modulus 8, remainder 2);
create table followed_tags_3 partition of followed_tags for values with (modulus 8, remainder 3);
create table followed_tags_4 partition of followed_tags for values with (modulus 8, remainder 4);
create table followed_tags_5 partition of followed_tags for values with (modulus 8, remainder 5);
create table followed_tags_6 partition of followed_tags for values with (modulus 8, remainder 6);
create table followed_tags_7 partition of followed_tags for values with (modulus 8, remainder 7);
