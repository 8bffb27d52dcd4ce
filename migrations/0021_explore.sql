-- Explore: what is popular now, ranked every minute. A page is a part of a ranking, which is kept for as long as pages of it may
-- be asked for.

create table explore_rankings (
  id bigint generated always as identity primary key,
  made_at timestamptz not null default now(),
  post_ids bigint[] not null
);

-- The newest likes of all: ids are times.
create index likers_newest on likers (id) include (post_id);
