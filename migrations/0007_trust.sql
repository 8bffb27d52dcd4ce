-- Trust: who is an admin, what was reported, warnings, and what was done about it. New tables only.

create table admins (
  account_id bigint primary key
);

-- All reports of one thing until they are resolved, together: resolving them changes one row, however many there are.
-- `subject_kind` is open: new kinds come with their features. `account_id` is whose the subject is.
create table report_cases (
  shard smallint not null,
  id bigint not null,
  subject_kind text not null,
  subject_id bigint not null,
  account_id bigint not null,
  report_count integer not null default 0,
  reasons text[] not null default '{}',
  resolution text,
  resolved_by bigint,
  resolved_at timestamptz,
  primary key (shard, id),
  check (shard = ((id >> 10) & 8191)),
  check (shard = ((subject_id >> 10) & 8191))
) partition by hash (shard);
create table report_cases_0 partition of report_cases for values with (modulus 8, remainder 0);
create table report_cases_1 partition of report_cases for values with (modulus 8, remainder 1);
create table report_cases_2 partition of report_cases for values with (modulus 8, remainder 2);
create table report_cases_3 partition of report_cases for values with (modulus 8, remainder 3);
create table report_cases_4 partition of report_cases for values with (modulus 8, remainder 4);
create table report_cases_5 partition of report_cases for values with (modulus 8, remainder 5);
create table report_cases_6 partition of report_cases for values with (modulus 8, remainder 6);
create table report_cases_7 partition of report_cases for values with (modulus 8, remainder 7);
create unique index report_cases_subject on report_cases (shard, subject_kind, subject_id) where resolved_at is null;
create index report_cases_open on report_cases (id) where resolved_at is null;

-- What each reporter said, once for each case. `id` is the report's own: it orders lists.
create table reports (
  shard smallint not null,
  case_id bigint not null,
  reporter_id bigint not null,
  id bigint not null,
  reason text not null,
  detail text not null,
  primary key (shard, case_id, reporter_id),
  check (shard = ((case_id >> 10) & 8191))
) partition by hash (shard);
create table reports_0 partition of reports for values with (modulus 8, remainder 0);
create table reports_1 partition of reports for values with (modulus 8, remainder 1);
create table reports_2 partition of reports for values with (modulus 8, remainder 2);
create table reports_3 partition of reports for values with (modulus 8, remainder 3);
create table reports_4 partition of reports for values with (modulus 8, remainder 4);
create table reports_5 partition of reports for values with (modulus 8, remainder 5);
create table reports_6 partition of reports for values with (modulus 8, remainder 6);
create table reports_7 partition of reports for values with (modulus 8, remainder 7);
create index reports_id on reports (shard, case_id, id);
create index reports_reporter on reports (reporter_id, id);

create table warnings (
  shard smallint not null,
  account_id bigint not null,
  id bigint not null,
  subject_kind text not null,
  subject_id bigint not null,
  message text not null,
  primary key (shard, account_id, id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table warnings_0 partition of warnings for values with (modulus 8, remainder 0);
create table warnings_1 partition of warnings for values with (modulus 8, remainder 1);
create table warnings_2 partition of warnings for values with (modulus 8, remainder 2);
create table warnings_3 partition of warnings for values with (modulus 8, remainder 3);
create table warnings_4 partition of warnings for values with (modulus 8, remainder 4);
create table warnings_5 partition of warnings for values with (modulus 8, remainder 5);
create table warnings_6 partition of warnings for values with (modulus 8, remainder 6);
create table warnings_7 partition of warnings for values with (modulus 8, remainder 7);

-- Every action, by an admin or by an operator at the command line. Rows are added and never change: the few that there are
-- need no shards, and are read in the order of their ids.
create table audit_log (
  id bigint primary key,
  admin_id bigint,
  operator text,
  action text not null,
  subject_kind text not null,
  subject_id bigint not null,
  account_id bigint not null,
  case_id bigint,
  note text not null,
  check ((admin_id is null) <> (operator is null))
);
create index audit_log_account on audit_log (account_id, id);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name;
end
$$;
create trigger audit_log_is_append_only before update or delete or truncate on audit_log
  for each statement execute function refuse_change();
