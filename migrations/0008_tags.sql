-- What captions name: tags and accounts.

-- What is in the index and in activity because of this post: read when it is edited or deleted.
alter table posts add column tags text[] not null default '{}';
-- [{"name": as it was written, folded, "start": code points, "length": code points, "account": id}]
alter table posts add column mentions jsonb not null default '[]';

-- The published posts with a tag. `shard` is a hash of the tag (docs/decisions/0019): a page is read in one place.
create table tagged_posts (
  shard smallint not null,
  tag text collate "C" not null,
  post_id bigint not null,
  author_id bigint not null,
  primary key (shard, tag, post_id)
) partition by hash (shard);
create table tagged_posts_0 partition of tagged_posts for values with (modulus 8, remainder 0);
create table tagged_posts_1 partition of tagged_posts for values with (modulus 8, remainder 1);
create table tagged_posts_2 partition of tagged_posts for values with (modulus 8, remainder 2);
create table tagged_posts_3 partition of tagged_posts for values with (modulus 8, remainder 3);
create table tagged_posts_4 partition of tagged_posts for values with (modulus 8, remainder 4);
create table tagged_posts_5 partition of tagged_posts for values with (modulus 8, remainder 5);
create table tagged_posts_6 partition of tagged_posts for values with (modulus 8, remainder 6);
create table tagged_posts_7 partition of tagged_posts for values with (modulus 8, remainder 7);

-- Every tag that was ever used. `level` tells about how often, in eighths of a doubling, and seldom changes where that is often.
create table tags (
  shard smallint not null,
  tag text collate "C" not null,
  level smallint not null,
  primary key (shard, tag)
) partition by hash (shard);
create table tags_0 partition of tags for values with (modulus 8, remainder 0);
create table tags_1 partition of tags for values with (modulus 8, remainder 1);
create table tags_2 partition of tags for values with (modulus 8, remainder 2);
create table tags_3 partition of tags for values with (modulus 8, remainder 3);
create table tags_4 partition of tags for values with (modulus 8, remainder 4);
create table tags_5 partition of tags for values with (modulus 8, remainder 5);
create table tags_6 partition of tags for values with (modulus 8, remainder 6);
create table tags_7 partition of tags for values with (modulus 8, remainder 7);
create index tags_popular on tags ((level / 8), tag);
