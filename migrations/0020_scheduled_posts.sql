-- Posts that wait for their time. Once it has come there is a post, under another id, which the row names until that is deleted.
-- `place` is the time, as the lowest id that can be made then, and a little more, which tells posts of one time apart; `entry_id`
-- is of the outbox's entry that waits for it. Their photos name the row's id as their post's.

create table scheduled_posts (
  shard smallint not null,
  id bigint not null,
  author_id bigint not null,
  caption text not null,
  place bigint not null,
  entry_id bigint not null,
  post_id bigint,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((author_id >> 10) & 8191))
) partition by hash (shard);
create table scheduled_posts_0 partition of scheduled_posts for values with (modulus 8, remainder 0);
create table scheduled_posts_1 partition of scheduled_posts for values with (modulus 8, remainder 1);
create table scheduled_posts_2 partition of scheduled_posts for values with (modulus 8, remainder 2);
create table scheduled_posts_3 partition of scheduled_posts for values with (modulus 8, remainder 3);
create table scheduled_posts_4 partition of scheduled_posts for values with (modulus 8, remainder 4);
create table scheduled_posts_5 partition of scheduled_posts for values with (modulus 8, remainder 5);
create table scheduled_posts_6 partition of scheduled_posts for values with (modulus 8, remainder 6);
create table scheduled_posts_7 partition of scheduled_posts for values with (modulus 8, remainder 7);
create index scheduled_posts_author on scheduled_posts (shard, author_id, post_id, place);
create index scheduled_posts_post on scheduled_posts (shard, post_id) where post_id is not null;
