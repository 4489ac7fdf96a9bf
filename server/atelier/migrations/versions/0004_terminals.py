"""open terminals

Revision: 0004, after 0003
"""

from alembic import op
import sqlalchemy as sa


revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('terminals',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('session_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=True),
    sa.Column('title', sa.String(length=1024), nullable=False),
    sa.Column('language', sa.String(length=32), nullable=False),
    sa.Column('entry', sa.String(length=1024), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('holder', sa.String(length=64), nullable=False),
    sa.Column('held_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_terminals_session_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_terminals_user_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_terminals'))
    )
    with op.batch_alter_table('terminals', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_terminals_session_id'), ['session_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_terminals_user_id'), ['user_id'], unique=False)


def downgrade() -> None:
    op.drop_table('terminals')
