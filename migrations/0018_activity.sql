-- Activity as it is read: where each entry stands, how far an account has read, whom it wants to hear of.

-- An entry is a row: of one act with its actor, or of all acts of a kind on a subject with actor 0, whose actors are whoever
-- likes, comments, follows or asks to. `id` orders entries: that of the act which last moved it. Entries of the release before
-- this one have none; nobody could read them.
alter table activity add column id bigint not null default 0;
create index activity_id on activity (shard, account_id, id);
-- What somebody caused, and what one post or comment of theirs did.
create index activity_caused on activity (actor_id, subject_id);
drop index activity_actor;

create table inboxes (
  shard smallint not null,
  account_id bigint not null,
  read_id bigint not null default 0,
  preferences jsonb not null default '{}',
  primary key (shard, account_id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table inboxes_0 partition of inboxes for values with (modulus 8, remainder 0);
create table inboxes_1 partition of inboxes for values with (modulus 8, remainder 1);
create table inboxes_2 partition of inboxes for values with (modulus 8, remainder 2);
create table inboxes_3 partition of inboxes for values with (modulus 8, remainder 3);
create table inboxes_4 partition of inboxes for values with (modulus 8, remainder 4);
create table inboxes_5 partition of inboxes for values with (modulus 8, remainder 5);
create table inboxes_6 partition of inboxes for values with (modulus 8, remainder 6);
create table inboxes_7 partition of inboxes for values with (modulus 8, remainder 7);

-- Acts that were undone lately: whoever does so again is where they were, and nobody is told twice.
create table undone (
  shard smallint not null,
  account_id bigint not null,
  kind text not null,
  subject_id bigint not null,
  actor_id bigint not null,
  id bigint not null,
  primary key (shard, account_id, kind, subject_id, actor_id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table undone_0 partition of undone for values with (modulus 8, remainder 0);
create table undone_1 partition of undone for values with (modulus 8, remainder 1);
create table undone_2 partition of undone for values with (modulus 8, remainder 2);
create table undone_3 partition of undone for values with (modulus 8, remainder 3);
create table undone_4 partition of undone for values with (modulus 8, remainder 4);
create table undone_5 partition of undone for values with (modulus 8, remainder 5);
create table undone_6 partition of undone for values with (modulus 8, remainder 6);
create table undone_7 partition of undone for values with (modulus 8, remainder 7);
create index undone_actor on undone (actor_id);
create index undone_id on undone (id);

alter table comments add column mentions jsonb not null default '[]';
