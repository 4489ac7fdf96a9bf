"""who let a session's programs reach the internet, and when

Revision: 0006, after 0005
"""

from alembic import op
import sqlalchemy as sa


revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('sessions', schema=None) as batch_op:
        batch_op.add_column(sa.Column('egress_by', sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column('egress_at', sa.BigInteger(), nullable=True))
        batch_op.create_index(batch_op.f('ix_sessions_egress_by'), ['egress_by'], unique=False)
        batch_op.create_foreign_key(batch_op.f('fk_sessions_egress_by'), 'users', ['egress_by'], ['id'], ondelete='SET NULL')


def downgrade() -> None:
    with op.batch_alter_table('sessions', schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f('fk_sessions_egress_by'), type_='foreignkey')
        batch_op.drop_index(batch_op.f('ix_sessions_egress_by'))
        batch_op.drop_column('egress_at')
        batch_op.drop_column('egress_by')
