-- What finding rows without objects, and objects without rows, needs.

-- When the original was deleted because it is kept no longer; its renditions stay.
alter table media add column original_deleted_at timestamptz;
-- Since when it waits to be posted: an upload in parts is as old as its id when it is completed.
alter table media add column uploaded_at timestamptz not null default now();

-- In the order in which the bucket lists renditions: by what their keys begin with (src/instafeed/storage/blobs.py).
create index media_stored on media (substr(sha256(object_key::bytea), 1, 16));
create index media_unposted on media (id) where post_id is null and status <> 'pending';
create index media_processing on media (id) where status = 'processing';
create index uploads_stored on uploads (object_key);

-- How far each scan has come.
create table scans (
  name text primary key,
  position text not null
);
