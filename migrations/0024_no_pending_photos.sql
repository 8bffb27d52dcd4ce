-- A photo has a row once its bytes are stored, and no longer before. What broke off is found in the bucket.
delete from media where status = 'pending';
drop index media_pending;
