-- What pushes go to: an app, or a browser, of a session, which goes when its session does, however that ends. `name` is what its
-- account's clients call it, `id` the registration's own: another one each time. `address` is a token of APNs or FCM, or the
-- URL of a browser's push service; `endpoint_arn` is what Amazon SNS calls a token, once it was asked.
create table devices (
  shard smallint not null,
  account_id bigint not null,
  name text not null,
  id bigint not null,
  session_id bigint not null,
  platform text not null,
  address text not null,
  p256dh bytea,
  auth bytea,
  endpoint_arn text,
  primary key (shard, account_id, name),
  foreign key (shard, session_id) references sessions (shard, id) on delete cascade,
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table devices_0 partition of devices for values with (modulus 8, remainder 0);
create table devices_1 partition of devices for values with (modulus 8, remainder 1);
create table devices_2 partition of devices for values with (modulus 8, remainder 2);
create table devices_3 partition of devices for values with (modulus 8, remainder 3);
create table devices_4 partition of devices for values with (modulus 8, remainder 4);
create table devices_5 partition of devices for values with (modulus 8, remainder 5);
create table devices_6 partition of devices for values with (modulus 8, remainder 6);
create table devices_7 partition of devices for values with (modulus 8, remainder 7);
create index devices_session on devices (shard, session_id);
-- Who else has an address, at whatever shard.
create index devices_address on devices using hash (address);

-- How far an entry was pushed: where it stood then, when that was begun, and whether work is noted that pushes it again.
alter table activity add column pushed_id bigint not null default 0;
alter table activity add column pushed_at timestamptz;
alter table activity add column push_waits boolean not null default false;

-- The same of the mail that tells of all that is unread.
alter table inboxes add column mailed_id bigint not null default 0;
alter table inboxes add column mailed_at timestamptz;
alter table inboxes add column mail_waits boolean not null default false;
