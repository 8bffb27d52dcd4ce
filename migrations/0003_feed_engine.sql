-- What the feed engine needs: how an author's posts reach followers, parts of work, and an index by author alone.

-- 0: pushed to followers; 1: pushed, and merged when a feed is read; 2: merged only.
alter table accounts add column delivery smallint not null default 0;

create index accounts_celebrities on accounts (id) where delivery > 0;

-- When somebody first was at it: whoever takes it next must look what is done already.
alter table outbox add column started_at timestamptz;

-- The home feed in SQL reads nothing but this.
create index posts_published on posts (shard, author_id, id) where published_at is not null;
