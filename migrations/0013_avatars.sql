-- An avatar is a photo that is claimed like a post's: its `post_id` is its account's id, negative, which is no post's.
-- Its renditions stand in the account's row too, where everything that names the account reads them.

alter table accounts add column avatar_id bigint;
alter table accounts add column avatar jsonb;
