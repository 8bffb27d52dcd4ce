-- What people do with posts: likes, saves, comments, and their counters. The release before this one knows nothing of them.

-- Who likes a post: a row at the account's shard and one at the post's, written together. `id` is the like's own: it orders lists.
create table likes (
  shard smallint not null,
  account_id bigint not null,
  post_id bigint not null,
  primary key (shard, account_id, post_id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table likes_0 partition of likes for values with (modulus 8, remainder 0);
create table likes_1 partition of likes for values with (modulus 8, remainder 1);
create table likes_2 partition of likes for values with (modulus 8, remainder 2);
create table likes_3 partition of likes for values with (modulus 8, remainder 3);
create table likes_4 partition of likes for values with (modulus 8, remainder 4);
create table likes_5 partition of likes for values with (modulus 8, remainder 5);
create table likes_6 partition of likes for values with (modulus 8, remainder 6);
create table likes_7 partition of likes for values with (modulus 8, remainder 7);

create table likers (
  shard smallint not null,
  post_id bigint not null,
  account_id bigint not null,
  id bigint not null,
  primary key (shard, post_id, account_id),
  check (shard = ((post_id >> 10) & 8191))
) partition by hash (shard);
create table likers_0 partition of likers for values with (modulus 8, remainder 0);
create table likers_1 partition of likers for values with (modulus 8, remainder 1);
create table likers_2 partition of likers for values with (modulus 8, remainder 2);
create table likers_3 partition of likers for values with (modulus 8, remainder 3);
create table likers_4 partition of likers for values with (modulus 8, remainder 4);
create table likers_5 partition of likers for values with (modulus 8, remainder 5);
create table likers_6 partition of likers for values with (modulus 8, remainder 6);
create table likers_7 partition of likers for values with (modulus 8, remainder 7);
create index likers_id on likers (shard, post_id, id);

-- What an account has saved, which is nobody else's business; the row at the post's shard says what goes with the post.
create table saves (
  shard smallint not null,
  account_id bigint not null,
  post_id bigint not null,
  id bigint not null,
  primary key (shard, account_id, post_id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table saves_0 partition of saves for values with (modulus 8, remainder 0);
create table saves_1 partition of saves for values with (modulus 8, remainder 1);
create table saves_2 partition of saves for values with (modulus 8, remainder 2);
create table saves_3 partition of saves for values with (modulus 8, remainder 3);
create table saves_4 partition of saves for values with (modulus 8, remainder 4);
create table saves_5 partition of saves for values with (modulus 8, remainder 5);
create table saves_6 partition of saves for values with (modulus 8, remainder 6);
create table saves_7 partition of saves for values with (modulus 8, remainder 7);
create index saves_id on saves (shard, account_id, id);

create table savers (
  shard smallint not null,
  post_id bigint not null,
  account_id bigint not null,
  primary key (shard, post_id, account_id),
  check (shard = ((post_id >> 10) & 8191))
) partition by hash (shard);
create table savers_0 partition of savers for values with (modulus 8, remainder 0);
create table savers_1 partition of savers for values with (modulus 8, remainder 1);
create table savers_2 partition of savers for values with (modulus 8, remainder 2);
create table savers_3 partition of savers for values with (modulus 8, remainder 3);
create table savers_4 partition of savers for values with (modulus 8, remainder 4);
create table savers_5 partition of savers for values with (modulus 8, remainder 5);
create table savers_6 partition of savers for values with (modulus 8, remainder 6);
create table savers_7 partition of savers for values with (modulus 8, remainder 7);

-- Comments stand at the post's shard, and so do their ids; a reply names the first comment. The author's shard has a row
-- that says which they are.
create table comments (
  shard smallint not null,
  id bigint not null,
  post_id bigint not null,
  parent_id bigint,
  author_id bigint not null,
  text text not null,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((post_id >> 10) & 8191))
) partition by hash (shard);
create table comments_0 partition of comments for values with (modulus 8, remainder 0);
create table comments_1 partition of comments for values with (modulus 8, remainder 1);
create table comments_2 partition of comments for values with (modulus 8, remainder 2);
create table comments_3 partition of comments for values with (modulus 8, remainder 3);
create table comments_4 partition of comments for values with (modulus 8, remainder 4);
create table comments_5 partition of comments for values with (modulus 8, remainder 5);
create table comments_6 partition of comments for values with (modulus 8, remainder 6);
create table comments_7 partition of comments for values with (modulus 8, remainder 7);
-- A post's comments, a comment's replies, and all that goes with a post.
create index comments_post on comments (shard, post_id, parent_id, id);

create table commented (
  shard smallint not null,
  account_id bigint not null,
  comment_id bigint not null,
  primary key (shard, account_id, comment_id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table commented_0 partition of commented for values with (modulus 8, remainder 0);
create table commented_1 partition of commented for values with (modulus 8, remainder 1);
create table commented_2 partition of commented for values with (modulus 8, remainder 2);
create table commented_3 partition of commented for values with (modulus 8, remainder 3);
create table commented_4 partition of commented for values with (modulus 8, remainder 4);
create table commented_5 partition of commented for values with (modulus 8, remainder 5);
create table commented_6 partition of commented for values with (modulus 8, remainder 6);
create table commented_7 partition of commented for values with (modulus 8, remainder 7);

-- How often a post was liked and commented, and a comment replied to: the sum over slots, of which there are as many as
-- transactions have counted at once. Free space in the pages keeps updates beside the rows that they update.
create table counters (
  shard smallint not null,
  subject_id bigint not null,
  slot smallint not null,
  likes integer not null default 0,
  comments integer not null default 0,
  primary key (shard, subject_id, slot),
  check (shard = ((subject_id >> 10) & 8191))
) partition by hash (shard);
create table counters_0 partition of counters for values with (modulus 8, remainder 0) with (fillfactor = 50);
create table counters_1 partition of counters for values with (modulus 8, remainder 1) with (fillfactor = 50);
create table counters_2 partition of counters for values with (modulus 8, remainder 2) with (fillfactor = 50);
create table counters_3 partition of counters for values with (modulus 8, remainder 3) with (fillfactor = 50);
create table counters_4 partition of counters for values with (modulus 8, remainder 4) with (fillfactor = 50);
create table counters_5 partition of counters for values with (modulus 8, remainder 5) with (fillfactor = 50);
create table counters_6 partition of counters for values with (modulus 8, remainder 6) with (fillfactor = 50);
create table counters_7 partition of counters for values with (modulus 8, remainder 7) with (fillfactor = 50);
