-- Every entry of the outbox is updated several times within seconds, each time with another place in outbox_due, and its row
-- is kept for a week. By PostgreSQL's default a partition is vacuumed when a fifth of that week has died: until then the sweep,
-- every few seconds, reads past the dead entries of days to find what is due.
alter table outbox_0 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_1 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_2 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_3 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_4 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_5 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_6 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
alter table outbox_7 set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
