-- Resumable uploads, and finding a photo by its digest.

-- One that is open: its parts are in S3, under a multipart upload to `object_key`, which is begun after the row is there.
-- Completed, it becomes a photo with the same id, and its row goes.
create table uploads (
  shard smallint not null,
  id bigint not null,
  account_id bigint not null,
  object_key text not null,
  s3_upload_id text,
  size bigint not null,
  sha256 bytea not null,
  part_size integer not null,
  camera_facts boolean not null default false,
  expires_at timestamptz not null,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table uploads_0 partition of uploads for values with (modulus 8, remainder 0);
create table uploads_1 partition of uploads for values with (modulus 8, remainder 1);
create table uploads_2 partition of uploads for values with (modulus 8, remainder 2);
create table uploads_3 partition of uploads for values with (modulus 8, remainder 3);
create table uploads_4 partition of uploads for values with (modulus 8, remainder 4);
create table uploads_5 partition of uploads for values with (modulus 8, remainder 5);
create table uploads_6 partition of uploads for values with (modulus 8, remainder 6);
create table uploads_7 partition of uploads for values with (modulus 8, remainder 7);
create index uploads_account on uploads (shard, account_id);
create index uploads_expires on uploads (expires_at);

create index media_sha256 on media (shard, account_id, sha256) where sha256 is not null;
