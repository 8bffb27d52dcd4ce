-- Copies of their data that people asked for. The object goes when the row does, or soon after.

create table exports (
  shard smallint not null,
  id bigint not null,
  account_id bigint not null,
  object_key text not null,
  status text not null,
  photos integer not null default 0,
  photos_done integer not null default 0,
  size bigint,
  ready_at timestamptz,
  expires_at timestamptz not null,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table exports_0 partition of exports for values with (modulus 8, remainder 0);
create table exports_1 partition of exports for values with (modulus 8, remainder 1);
create table exports_2 partition of exports for values with (modulus 8, remainder 2);
create table exports_3 partition of exports for values with (modulus 8, remainder 3);
create table exports_4 partition of exports for values with (modulus 8, remainder 4);
create table exports_5 partition of exports for values with (modulus 8, remainder 5);
create table exports_6 partition of exports for values with (modulus 8, remainder 6);
create table exports_7 partition of exports for values with (modulus 8, remainder 7);
create index exports_account on exports (shard, account_id);
create index exports_expires on exports (expires_at);
